#pragma once

#include <cstdint>
#include <vector>

#include "services/learner/algorithm/step_batch.h"

namespace atod::learner {

struct SignalOptions {
  // Delta uses the current log-prob, detached, at each update instead of the
  // old one. T-DUR's d and h stay those of the old policy.
  bool current = false;
  double scale = 1;         // l of G-OPD, see TeacherGap
  double clamp = 0;         // largest |Delta|; 0: none
  double return_to_go = 0;  // discount; 0: none
};

// Delta_t = log pi_T - log pi_student within the clamp, Eq. 6. With a scale l
// other than 1 it is l (log pi_T - log pi_ref) - (log pi_student - log pi_ref)
// (G-OPD, arXiv 2602.12125): above 1 it goes beyond the teacher, away from the
// reference.
double TeacherGap(double teacher, double student, double reference,
                  const SignalOptions& options);

// The same for row t of a batch, whose student log-prob is `student`.
double TeacherGapAt(const StepBatch& batch, int32_t t, double student,
                    const SignalOptions& options);

// The distillation signal, [tokens]; empty without a teacher. With
// return_to_go the Deltas of a turn become
//   sum_{u >= t} g^(u - t) Delta_u / (tokens of the turn from t on).
// `clamped` counts the tokens that the clamp changed.
std::vector<double> DistillationSignal(const StepBatch& batch,
                                       const SignalOptions& options,
                                       int64_t* clamped);

}  // namespace atod::learner

#include "services/learner/algorithm/signal.h"

#include <algorithm>

namespace atod::learner {

double TeacherGap(double teacher, double student, double reference,
                  const SignalOptions& options) {
  const double gap =
      options.scale == 1
          ? teacher - student
          : options.scale * (teacher - reference) - (student - reference);
  return options.clamp > 0 ? std::clamp(gap, -options.clamp, options.clamp)
                           : gap;
}

double TeacherGapAt(const StepBatch& batch, int32_t t, double student,
                    const SignalOptions& options) {
  return TeacherGap(batch.teacher_logprob[t], student,
                    options.scale == 1 ? 0 : batch.reference_logprob[t],
                    options);
}

std::vector<double> DistillationSignal(const StepBatch& batch,
                                       const SignalOptions& options,
                                       int64_t* clamped) {
  *clamped = 0;
  std::vector<double> signal(batch.teacher_logprob.size());
  for (size_t t = 0; t < signal.size(); ++t) {
    const int32_t row = static_cast<int32_t>(t);
    signal[t] = TeacherGapAt(batch, row, batch.old_logprob[t], options);
    if (options.clamp > 0) {
      SignalOptions free = options;
      free.clamp = 0;
      *clamped +=
          signal[t] != TeacherGapAt(batch, row, batch.old_logprob[t], free);
    }
  }
  if (options.return_to_go > 0 && !signal.empty()) {
    for (int k = 0; k < batch.num_turns(); ++k) {
      double sum = 0;
      const int32_t end = batch.token_begin[k + 1];
      for (int32_t t = end - 1; t >= batch.token_begin[k]; --t) {
        sum = signal[t] + options.return_to_go * sum;
        signal[t] = sum / (end - t);
      }
    }
  }
  return signal;
}

}  // namespace atod::learner

#include "services/learner/trajectory_check.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/prompt/prompt_spec.h"
#include "services/learner/algorithm/step_batch.h"

namespace atod::learner {
namespace {

absl::Status Bad(const std::string& field, const std::string& found,
                 const std::string& expected) {
  return BadInput({.file = "trajectory",
                   .field = field,
                   .found = found,
                   .expected = expected});
}

template <typename A, typename B>
absl::Status Same(const std::string& field, const A& found, const B& expected) {
  if (found == expected) return absl::OkStatus();
  return Bad(field, absl::StrCat("'", found, "'"),
             absl::StrCat("'", expected, "' as in the lease"));
}

template <typename Values>
absl::Status CheckLogProbs(const std::string& field, const Values& values,
                           uint32_t length) {
  if (values.size() != static_cast<int>(length)) {
    return Bad(field, absl::StrCat(values.size(), " values"),
               absl::StrCat(length, ", one a token of the span"));
  }
  for (int i = 0; i < values.size(); ++i) {
    if (!IsLogProb(values[i])) {
      return Bad(absl::StrCat(field, "[", i, "]"), absl::StrCat(values[i]),
                 kLogProbText);
    }
  }
  return absl::OkStatus();
}

// The same weights are those of the same hash, whatever their number.
absl::Status CheckVersions(const std::string& field, const v1::Span& span,
                           const v1::Lease& lease) {
  uint64_t count = 0;
  for (const v1::VersionRun& run : span.versions()) {
    count += run.count();
    const v1::WeightVersion& v = run.version();
    if (run.count() == 0 || (v.root_hash() != lease.weight_max().root_hash() &&
                             v.root_hash() != lease.weight_min().root_hash())) {
      return Bad(absl::StrCat(field, ".versions"),
                 absl::StrCat(run.count(), " tokens of version ", v.number(),
                              " (", v.root_hash(), ")"),
                 absl::StrCat("version ", lease.weight_min().number(), " to ",
                              lease.weight_max().number(), " (",
                              lease.weight_max().root_hash(), ")"));
    }
  }
  if (count == span.length()) return absl::OkStatus();
  return Bad(absl::StrCat(field, ".versions"),
             absl::StrCat("counts that add up to ", count),
             absl::StrCat(span.length(), ", the length of the span"));
}

absl::Status CheckTeachers(const std::string& field, const v1::Span& span,
                           const v1::Lease& lease) {
  for (const std::string& name : lease.teachers()) {
    const std::string teacher_field = absl::StrCat(field, ".teacher");
    const v1::TeacherScores* scores = nullptr;
    for (const v1::TeacherScores& t : span.teacher())
      if (t.model() == name) scores = &t;
    if (scores == nullptr)
      return Bad(teacher_field, "none", absl::StrCat("scores of '", name, "'"));
    ATOD_RETURN_IF_ERROR(CheckLogProbs(absl::StrCat(teacher_field, ".logprobs"),
                                       scores->logprobs(), span.length()));
    if (std::abs(scores->temperature() - lease.sampling().temperature()) >
        1e-6f) {
      return Bad(
          absl::StrCat(teacher_field, ".temperature"),
          absl::StrCat(scores->temperature()),
          absl::StrCat(lease.sampling().temperature(), ", the student's"));
    }
  }
  return absl::OkStatus();
}

// A sequence a turn, or one an episode whose spans are its turns in order.
absl::Status CheckShape(const v1::Trajectory& t) {
  const bool grows = t.layout() == kGrowing;
  if (grows && t.sequences_size() > 1)
    return Bad("sequences", absl::StrCat(t.sequences_size()),
               "one, as layout growing has");
  for (int s = 0; s < t.sequences_size(); ++s) {
    const v1::Sequence& sequence = t.sequences(s);
    if (!grows && sequence.spans_size() > 1)
      return Bad(absl::StrCat("sequences[", s, "].spans"),
                 absl::StrCat(sequence.spans_size()),
                 "one, as layout windowed has");
    for (int i = 1; i < sequence.spans_size(); ++i)
      if (sequence.spans(i).turn() <= sequence.spans(i - 1).turn())
        return Bad(absl::StrCat("sequences[", s, "].spans[", i, "].turn"),
                   absl::StrCat(sequence.spans(i).turn()),
                   "a later turn than the one before");
  }
  return absl::OkStatus();
}

absl::Status CheckSequence(const std::string& field, const v1::Sequence& seq,
                           const v1::Trajectory& trajectory,
                           const v1::Lease& lease,
                           const TrajectoryLimits& limits) {
  const uint32_t size = seq.tokens_size();
  if (size == 0 || (limits.max_context > 0 && size > limits.max_context)) {
    return Bad(absl::StrCat(field, ".tokens"), absl::StrCat(size, " tokens"),
               absl::StrCat("1 to ", limits.max_context));
  }
  for (uint32_t i = 0; i < size; ++i) {
    if (seq.tokens(i) >= limits.vocab_size) {
      return Bad(absl::StrCat(field, ".tokens[", i, "]"),
                 absl::StrCat(seq.tokens(i)),
                 absl::StrCat("an id below ", limits.vocab_size));
    }
  }
  if (!lease.context().empty() || seq.context_tokens_size() > 0) {
    const std::string name = absl::StrCat(field, ".context_tokens");
    if (lease.context().empty() || seq.context_tokens_size() == 0 ||
        seq.spans_size() != 1) {
      return Bad(name,
                 absl::StrCat(seq.context_tokens_size(), " tokens and ",
                              seq.spans_size(), " spans"),
                 lease.context().empty()
                     ? "none, as in the lease"
                     : "a prompt under the lease's context and one span");
    }
    const uint64_t length =
        uint64_t(seq.context_tokens_size()) + seq.spans(0).length();
    if (limits.max_context > 0 && length > limits.max_context)
      return Bad(name, absl::StrCat(length, " tokens with the response"),
                 absl::StrCat("1 to ", limits.max_context));
    for (int i = 0; i < seq.context_tokens_size(); ++i) {
      if (seq.context_tokens(i) >= limits.vocab_size)
        return Bad(absl::StrCat(name, "[", i, "]"),
                   absl::StrCat(seq.context_tokens(i)),
                   absl::StrCat("an id below ", limits.vocab_size));
    }
  }
  uint64_t end = 1;  // the first token of a sequence has no log-prob
  for (int s = 0; s < seq.spans_size(); ++s) {
    const v1::Span& span = seq.spans(s);
    const std::string name = absl::StrCat(field, ".spans[", s, "]");
    const uint64_t span_end = uint64_t{span.begin()} + span.length();
    if (span.length() == 0 || span.begin() < end || span_end > size) {
      return Bad(name, absl::StrCat(span.begin(), " + ", span.length()),
                 absl::StrCat("tokens inside [", end, ", ", size, ")"));
    }
    end = span_end;
    if (span.turn() >= static_cast<uint32_t>(trajectory.turns_size()) ||
        !trajectory.turns(span.turn()).trainable()) {
      return Bad(absl::StrCat(name, ".turn"), absl::StrCat(span.turn()),
                 "the index of a trainable turn");
    }
    ATOD_RETURN_IF_ERROR(CheckLogProbs(absl::StrCat(name, ".rollout_logprobs"),
                                       span.rollout_logprobs(), span.length()));
    ATOD_RETURN_IF_ERROR(CheckVersions(name, span, lease));
    ATOD_RETURN_IF_ERROR(CheckTeachers(name, span, lease));
  }
  return absl::OkStatus();
}

absl::Status CheckError(const v1::Outcome& outcome) {
  const bool ended_so = outcome.done_reason() == v1::ERROR;
  if (outcome.has_error() != ended_so) {
    return Bad("outcome.error", outcome.has_error() ? "an error" : "nothing",
               ended_so
                   ? "why it ended in ERROR"
                   : absl::StrCat("nothing, as it ended in ",
                                  v1::DoneReason_Name(outcome.done_reason())));
  }
  if (!ended_so) return absl::OkStatus();
  const v1::EpisodeError& error = outcome.error();
  if (std::find(std::begin(kErrorKinds), std::end(kErrorKinds), error.kind()) ==
      std::end(kErrorKinds)) {
    return Bad("outcome.error.kind", absl::StrCat("'", error.kind(), "'"),
               absl::StrCat("one of: ", absl::StrJoin(kErrorKinds, ", ")));
  }
  return error.message().empty()
             ? Bad("outcome.error.message", "nothing", "what went wrong")
             : absl::OkStatus();
}

}  // namespace

absl::Status CheckTrajectory(const v1::Trajectory& t, const v1::Lease& lease,
                             const TrajectoryLimits& limits) {
  ATOD_RETURN_IF_ERROR(Same("env", t.env(), lease.env()));
  ATOD_RETURN_IF_ERROR(Same("split", t.split(), lease.split()));
  ATOD_RETURN_IF_ERROR(
      Same("task.task_id", t.task().task_id(), lease.task_id()));
  ATOD_RETURN_IF_ERROR(Same("env_seed", t.env_seed(), lease.env_seed()));
  ATOD_RETURN_IF_ERROR(
      Same("content_hash", t.content_hash(), lease.content_hash()));
  ATOD_RETURN_IF_ERROR(Same("layout", t.layout(), lease.layout()));
  if (!IsReward(t.outcome().reward()))
    return Bad("outcome.reward", absl::StrCat(t.outcome().reward()),
               kRewardText);
  if (!std::isfinite(t.outcome().score()))
    return Bad("outcome.score", absl::StrCat(t.outcome().score()),
               "a finite number");
  for (int k = 0; k < t.turns_size(); ++k) {
    if (t.turns(k).index() != static_cast<uint32_t>(k)) {
      return Bad(absl::StrCat("turns[", k, "].index"),
                 absl::StrCat(t.turns(k).index()), absl::StrCat(k));
    }
  }
  ATOD_RETURN_IF_ERROR(CheckError(t.outcome()));
  if (EndedInError(t)) return absl::OkStatus();
  ATOD_RETURN_IF_ERROR(CheckShape(t));
  for (int s = 0; s < t.sequences_size(); ++s) {
    ATOD_RETURN_IF_ERROR(CheckSequence(absl::StrCat("sequences[", s, "]"),
                                       t.sequences(s), t, lease, limits));
  }
  return absl::OkStatus();
}

}  // namespace atod::learner

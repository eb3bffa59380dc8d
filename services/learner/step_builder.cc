#include "services/learner/step_builder.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "services/learner/work_id.h"

namespace atod::learner {
namespace {

// A span with the sequence it lies in.
struct PlacedSpan {
  int sequence;
  const v1::Span* span;
};

absl::Status AddTokens(const WorkId& id, const v1::Span& span,
                       const std::string& teacher, StepBatch& batch) {
  batch.rollout_logprob.insert(batch.rollout_logprob.end(),
                               span.rollout_logprobs().begin(),
                               span.rollout_logprobs().end());
  if (teacher.empty()) return absl::OkStatus();
  for (const v1::TeacherScores& scores : span.teacher()) {
    if (scores.model() != teacher) continue;
    batch.teacher_logprob.insert(batch.teacher_logprob.end(),
                                 scores.logprobs().begin(),
                                 scores.logprobs().end());
    if (scores.logprobs_size() == static_cast<int>(span.length()))
      return absl::OkStatus();
  }
  return BadInput({.file = absl::StrCat("trajectory ", FormatId(id)),
                   .field = absl::StrCat("turn ", span.turn(), ".teacher"),
                   .found = "no scores for each token",
                   .expected = absl::StrCat("scores of '", teacher, "'")});
}

}  // namespace

absl::StatusOr<StepData> BuildStepData(
    const std::vector<v1::Trajectory>& trajectories,
    const std::string& teacher) {
  std::vector<const v1::Trajectory*> sorted;
  for (const v1::Trajectory& t : trajectories) sorted.push_back(&t);
  std::sort(sorted.begin(), sorted.end(),
            [](const v1::Trajectory* a, const v1::Trajectory* b) {
              return IdOf(*a) < IdOf(*b);
            });
  StepData data;
  StepBatch& batch = data.batch;
  if (!sorted.empty()) data.temperature = sorted[0]->sampling().temperature();
  for (const v1::Trajectory* t : sorted) {
    const WorkId id = IdOf(*t);
    if (t->sampling().temperature() != data.temperature) {
      return BadInput({.file = absl::StrCat("trajectory ", FormatId(id)),
                       .field = "sampling.temperature",
                       .found = absl::StrCat(t->sampling().temperature()),
                       .expected = absl::StrCat(data.temperature)});
    }
    batch.trajectory_id.push_back(FormatId(id));
    batch.group.push_back(static_cast<int32_t>(id.group));
    batch.reward.push_back(t->outcome().reward());

    // Spans by turn, then place; a turn may have none.
    std::map<uint32_t, std::vector<PlacedSpan>> by_turn;
    for (int s = 0; s < t->sequences_size(); ++s)
      for (const v1::Span& span : t->sequences(s).spans())
        by_turn[span.turn()].push_back({s, &span});
    std::map<const v1::Span*, int32_t> row;
    for (const v1::Turn& turn : t->turns()) {
      if (!turn.trainable()) continue;
      batch.turn_index.push_back(static_cast<int32_t>(turn.index()));
      batch.valid_action.push_back(turn.valid());
      int32_t end = batch.token_begin.back();
      for (const PlacedSpan& placed : by_turn[turn.index()]) {
        row[placed.span] = end;
        end += static_cast<int32_t>(placed.span->length());
        ATOD_RETURN_IF_ERROR(AddTokens(id, *placed.span, teacher, batch));
      }
      batch.token_begin.push_back(end);
    }
    batch.turn_begin.push_back(batch.num_turns());

    std::vector<TrainSequence> sequences;
    for (const v1::Sequence& sequence : t->sequences()) {
      TrainSequence out;
      out.trajectory = batch.num_trajectories() - 1;
      for (const v1::Span& span : sequence.spans()) {
        const auto it = row.find(&span);
        if (it == row.end()) continue;  // of a replayed turn
        out.spans.push_back({span.begin(), span.length(), it->second});
      }
      if (out.spans.empty()) continue;
      if (sequence.context_tokens_size() > 0) {
        TrainSequence context;
        context.trajectory = out.trajectory;
        context.tokens.assign(sequence.context_tokens().begin(),
                              sequence.context_tokens().end());
        const TrainSpan& span = out.spans[0];
        context.spans = {{static_cast<uint32_t>(context.tokens.size()),
                          span.length, span.row}};
        context.tokens.insert(
            context.tokens.end(), sequence.tokens().begin() + span.begin,
            sequence.tokens().begin() + span.begin + span.length);
        data.context_sequences.push_back(std::move(context));
      }
      const uint32_t end = out.spans.back().begin + out.spans.back().length;
      out.tokens.assign(sequence.tokens().begin(),
                        sequence.tokens().begin() + end);
      sequences.push_back(std::move(out));
    }
    std::stable_sort(sequences.begin(), sequences.end(),
                     [](const TrainSequence& a, const TrainSequence& b) {
                       return a.spans[0].row < b.spans[0].row;
                     });
    for (TrainSequence& s : sequences) data.sequences.push_back(std::move(s));
  }
  return data;
}

}  // namespace atod::learner

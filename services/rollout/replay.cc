#include "services/rollout/replay.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"

namespace atod::rollout {
namespace {

std::string Differs(const std::string& what, const std::string& found,
                    const std::string& expected) {
  return absl::StrCat(what, ": found ", found, ", expected ", expected);
}

std::string Quoted(const std::string& text) {
  return absl::StrCat("\"", text, "\"");
}

// Of two runs of floats, to the bit.
template <typename Floats>
std::string DifferentFloats(const std::string& what, const Floats& found,
                            const Floats& expected) {
  if (found.size() != expected.size())
    return Differs(what, absl::StrCat(found.size(), " values"),
                   absl::StrCat(expected.size()));
  for (int i = 0; i < found.size(); ++i)
    if (std::bit_cast<uint32_t>(found[i]) !=
        std::bit_cast<uint32_t>(expected[i]))
      return Differs(absl::StrCat(what, " ", i),
                     absl::StrFormat("%.9g", found[i]),
                     absl::StrFormat("%.9g", expected[i]));
  return "";
}

// Root hashes of the weights that sampled a span.
std::vector<std::string> WeightsOf(const v1::Span& span) {
  std::vector<std::string> out;
  for (const v1::VersionRun& run : span.versions())
    out.push_back(run.version().root_hash());
  return out;
}

// Where the model's response of a turn lies.
struct Response {
  const v1::Sequence* sequence = nullptr;  // null: there is none
  int number = 0;                          // of its span

  const v1::Span& span() const { return sequence->spans(number); }
  // The turn's tokens: what came since the response before, and its own.
  uint32_t first() const {
    if (number == 0) return 0;
    const v1::Span& before = sequence->spans(number - 1);
    return before.begin() + before.length();
  }
  uint32_t end() const { return span().begin() + span().length(); }
};

Response ResponseOf(const v1::Trajectory& t, uint32_t turn) {
  for (const v1::Sequence& sequence : t.sequences())
    for (int s = 0; s < sequence.spans_size(); ++s)
      if (sequence.spans(s).turn() == turn) return {&sequence, s};
  return {};
}

std::string DifferentScores(const v1::Span& f, const v1::Span& e) {
  for (int t = 0; t < f.teacher_size() && t < e.teacher_size(); ++t) {
    if (e.teacher(t).weights_hash().empty()) continue;  // an error came first
    if (f.teacher(t).weights_hash() != e.teacher(t).weights_hash())
      return Differs("weights of teacher " + e.teacher(t).model(),
                     f.teacher(t).weights_hash(), e.teacher(t).weights_hash());
    std::string different =
        DifferentFloats("log-prob of teacher " + e.teacher(t).model(),
                        f.teacher(t).logprobs(), e.teacher(t).logprobs());
    if (!different.empty()) return different;
  }
  return "";
}

// Tokens of one turn up to the first that differs, then log-probs.
std::string DifferentResponse(const Response& found, const Response& expected) {
  const v1::Span &f = found.span(), &e = expected.span();
  const auto end = static_cast<uint32_t>(
      std::min({int64_t{found.end()}, int64_t{expected.end()},
                int64_t{found.sequence->tokens_size()},
                int64_t{expected.sequence->tokens_size()}}));
  for (uint32_t i = expected.first(); i < end; ++i) {
    const uint32_t was = expected.sequence->tokens(static_cast<int>(i));
    const uint32_t is = found.sequence->tokens(static_cast<int>(i));
    if (is == was) continue;
    const bool prompt = i < e.begin();
    return Differs(absl::StrCat(prompt ? "prompt token " : "sampled token ",
                                prompt ? i : i - e.begin()),
                   absl::StrCat(is), absl::StrCat(was));
  }
  if (found.end() != expected.end() || found.first() != expected.first())
    return Differs("tokens", absl::StrCat(found.end() - found.first()),
                   absl::StrCat(expected.end() - expected.first()));
  std::string different = DifferentFloats(
      "rollout log-prob", f.rollout_logprobs(), e.rollout_logprobs());
  if (!different.empty()) return different;
  if (f.begin() != e.begin() || f.length() != e.length() ||
      f.finish() != e.finish() || WeightsOf(f) != WeightsOf(e))
    return Differs("span", f.ShortDebugString(), e.ShortDebugString());
  return DifferentScores(f, e);
}

std::string DifferentTurn(const v1::Turn& found, const v1::Turn& expected,
                          bool finished) {
  if (found.action_text() != expected.action_text())
    return Differs("text", Quoted(found.action_text()),
                   Quoted(expected.action_text()));
  if (!finished) return "";
  if (found.executed_action() != expected.executed_action())
    return Differs("action", Quoted(found.executed_action()),
                   Quoted(expected.executed_action()));
  if (found.valid() != expected.valid() ||
      found.admissible() != expected.admissible() ||
      found.reward() != expected.reward())
    return Differs("verdict", found.ShortDebugString(),
                   expected.ShortDebugString());
  return "";
}

// What a stored trajectory was played from.
Assignment AssignmentOf(const v1::Trajectory& t) {
  Assignment out;
  v1::Lease& lease = out.lease;
  lease.set_lease_id(t.lease_id());
  lease.set_step(t.id().step());
  lease.set_group(t.id().group());
  lease.set_attempt(t.id().attempt());
  lease.set_purpose(t.purpose());
  lease.set_env(t.env());
  lease.set_split(t.split());
  lease.set_task_id(t.task().task_id());
  lease.set_content_hash(t.content_hash());
  lease.set_env_seed(t.env_seed());
  lease.set_run_seed(t.run_seed());
  *lease.mutable_sampling() = t.sampling();
  lease.set_max_turns(t.max_turns());
  for (const v1::Turn& turn : t.turns())
    if (!turn.trainable()) lease.add_replay_actions(turn.action_text());
  lease.set_layout(t.layout());
  for (const v1::Sequence& sequence : t.sequences()) {
    for (const v1::Span& span : sequence.spans()) {
      for (const v1::VersionRun& run : span.versions())
        out.weights = run.version();
      if (lease.teachers_size() > 0) continue;
      for (const v1::TeacherScores& scores : span.teacher())
        lease.add_teachers(scores.model());
    }
  }
  out.sample = t.id().sample();
  out.run_id = t.id().run_id();
  out.incarnation = t.incarnation();
  out.worker = "replay";
  out.config_hash = t.config_hash();
  return out;
}

}  // namespace

Replayer::Replayer(engine::Engine& engine, envs::EnvCaller& envs,
                   const Tokenizer& tokenizer, teacher::TeacherCaller* teachers,
                   uint32_t max_context)
    : scores_(teachers != nullptr),
      loop_(engine, envs, tokenizer, teachers, clock_, registry_,
            {.slots = 1, .max_context = max_context, .nonce = "replay"}) {}

absl::StatusOr<v1::Trajectory> Replayer::Play(const v1::Trajectory& stored) {
  Assignment play = AssignmentOf(stored);
  if (!scores_) play.lease.clear_teachers();
  ATOD_RETURN_IF_ERROR(loop_.Add(std::move(play)));
  while (true) {
    ATOD_ASSIGN_OR_RETURN(std::vector<v1::Trajectory> played,
                          loop_.Poll(absl::InfiniteDuration()));
    if (!played.empty()) return std::move(played[0]);
  }
}

std::string FirstDifference(const v1::Trajectory& stored,
                            const v1::Trajectory& replayed, bool before_error) {
  const bool failed = before_error && stored.outcome().has_error();
  const int turns = std::min(stored.turns_size(), replayed.turns_size());
  for (int i = 0; i < turns; ++i) {
    const v1::Turn &found = replayed.turns(i), &expected = stored.turns(i);
    const auto of_turn = [&](const std::string& different) {
      return absl::StrCat("turn ", expected.index(), ": ", different);
    };
    if (found.observation() != expected.observation())
      return of_turn(Differs("observation", Quoted(found.observation()),
                             Quoted(expected.observation())));
    // The error came before the environment, or the model, had answered.
    const bool unfinished = failed && i + 1 == stored.turns_size() &&
                            expected.executed_action().empty();
    if (unfinished && expected.action_text().empty()) continue;
    const Response f = ResponseOf(replayed, expected.index());
    const Response e = ResponseOf(stored, expected.index());
    const bool is = f.sequence != nullptr, was = e.sequence != nullptr;
    if (is != was && !(failed && !was))
      return of_turn(
          Differs("response", is ? "one" : "none", was ? "one" : "none"));
    std::string different = is && was ? DifferentResponse(f, e) : "";
    if (different.empty())
      different = DifferentTurn(found, expected, !unfinished);
    if (!different.empty()) return of_turn(different);
  }
  if (failed && replayed.turns_size() >= stored.turns_size()) return "";
  if (stored.turns_size() != replayed.turns_size())
    return Differs("turns", absl::StrCat(replayed.turns_size()),
                   absl::StrCat(stored.turns_size()));
  if (stored.outcome().SerializeAsString() !=
      replayed.outcome().SerializeAsString())
    return Differs("outcome", replayed.outcome().ShortDebugString(),
                   stored.outcome().ShortDebugString());
  return "";
}

}  // namespace atod::rollout

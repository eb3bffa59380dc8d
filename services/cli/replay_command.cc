#include "services/cli/replay_command.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/problem.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/engine/engine.h"
#include "common/model/threads.h"
#include "common/run/run_folder.h"
#include "common/tokenizer/tokenizer.h"
#include "common/weights/snapshot_file.h"
#include "services/cli/command.h"
#include "services/envs/local_caller.h"
#include "services/envs/open_environment.h"
#include "services/learner/run_checkpoint.h"
#include "services/learner/trajectory_store.h"
#include "services/learner/work_id.h"
#include "services/rollout/engine_options.h"
#include "services/rollout/replay.h"
#include "services/teacher/scorer.h"

namespace atod::cli {
namespace {

namespace fs = std::filesystem;
using learner::WorkId;

struct ReplayFlags {
  std::string run_dir;
  std::vector<std::string> ids;
  uint32_t random = 0;
  uint64_t seed = 0;
};

// Scores in this process; every call runs before it returns.
class LocalTeachers : public teacher::TeacherCaller {
 public:
  absl::Status Open(const v1::RunConfig& config) {
    for (const v1::TeacherConfig& teacher : config.teachers()) {
      if (!fs::is_directory(teacher.path())) {
        std::fprintf(stderr,
                     "teacher %s is not at %s: its scores are not compared\n",
                     teacher.name().c_str(), teacher.path().c_str());
        scorers_.clear();
        return absl::OkStatus();
      }
      ATOD_ASSIGN_OR_RETURN(
          scorers_[teacher.name()],
          teacher::MakeScorer(teacher.path(),
                              {.dtype = config.model().dtype(),
                               .device = config.device(),
                               .deterministic = config.deterministic(),
                               .max_context = config.model().max_context()}));
    }
    return absl::OkStatus();
  }
  bool empty() const { return scorers_.empty(); }

  void Score(teacher::TeacherRequest request,
             std::function<void(absl::StatusOr<teacher::TeacherReply>)> done)
      override {
    const auto it = scorers_.find(request.model);
    if (it == scorers_.end())
      return done(absl::NotFoundError(
          absl::StrCat("no teacher '", request.model, "' in the run")));
    auto scored = it->second.scorer->Score(
        {{std::move(request.tokens), {{request.begin, request.length}}}},
        {request.temperature, false});
    if (!scored.ok()) return done(scored.status());
    done(teacher::TeacherReply{.model = request.model,
                               .weights_hash = it->second.weights_hash,
                               .temperature = request.temperature,
                               .logprobs = std::move((*scored)[0].logprobs),
                               .entropy = {}});
  }

 private:
  std::map<std::string, teacher::LoadedScorer> scorers_;
};

// The weights of a version: kept by the run, a checkpoint's, or those that the
// run began with.
absl::StatusOr<weights::WeightSnapshot> FindWeights(
    const RunFolder& run, const v1::RunConfig& config,
    const std::string& root_hash) {
  const std::string kept = run.weights(root_hash);
  if (fs::exists(kept)) {
    ATOD_ASSIGN_OR_RETURN(weights::WeightSnapshot snapshot,
                          weights::ReadSnapshotFile(kept));
    if (snapshot.root_hash == root_hash) return snapshot;
    return absl::DataLossError(absl::StrCat(
        kept, ": found root hash ", snapshot.root_hash, ", expected its name"));
  }
  for (const auto& [step, dir] : learner::Checkpoints(run)) {
    ATOD_ASSIGN_OR_RETURN(const learner::RunCheckpoint checkpoint,
                          learner::LoadCheckpoint(dir));
    if (checkpoint.root_hash == root_hash)
      return weights::ReadSnapshotFile(CheckpointFolder(dir).model() +
                                       "/model.safetensors");
  }
  const std::string first = config.model().path() + "/model.safetensors";
  if (fs::exists(first)) {
    ATOD_ASSIGN_OR_RETURN(weights::WeightSnapshot snapshot,
                          weights::ReadSnapshotFile(first));
    if (snapshot.root_hash == root_hash) return snapshot;
  }
  return BadInput({.file = run.dir(),
                   .field = "weights",
                   .found = absl::StrCat("no copy of version ", root_hash),
                   .expected = "a run with checkpoint.keep_weights: true, or a "
                               "checkpoint of that version"});
}

// The root hash of the weights that sampled it; empty when nothing was.
std::string WeightsOf(const v1::Trajectory& t) {
  for (const v1::Sequence& sequence : t.sequences())
    for (const v1::Span& span : sequence.spans())
      for (const v1::VersionRun& run : span.versions())
        return run.version().root_hash();
  return "";
}

// Calls `each` on all trajectories that a run accepted.
absl::Status ForEachStored(const RunFolder& run,
                           const std::function<void(v1::Trajectory)>& each) {
  const std::string dir = run.spool();
  for (const v1::Purpose purpose : {v1::TRAIN, v1::EVAL}) {
    ATOD_ASSIGN_OR_RETURN(const std::vector<uint32_t> steps,
                          learner::StoredSteps(dir, purpose));
    for (const uint32_t step : steps)
      ATOD_RETURN_IF_ERROR(learner::ReadTrajectories(
          learner::TrajectoryFile(dir, purpose, step), each));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<WorkId>> AllIds(const RunFolder& run) {
  std::set<WorkId> ids;
  ATOD_RETURN_IF_ERROR(ForEachStored(
      run, [&](const v1::Trajectory& t) { ids.insert(learner::IdOf(t)); }));
  return std::vector<WorkId>(ids.begin(), ids.end());
}

absl::StatusOr<std::vector<WorkId>> Chosen(const RunFolder& run,
                                           const ReplayFlags& flags) {
  std::vector<WorkId> ids;
  for (const std::string& text : flags.ids) {
    ATOD_ASSIGN_OR_RETURN(ids.emplace_back(), learner::ParseId(text));
  }
  if (flags.random == 0) return ids;
  ATOD_ASSIGN_OR_RETURN(std::vector<WorkId> all, AllIds(run));
  Rng(flags.seed).Shuffle(all);
  all.resize(std::min<size_t>(all.size(), flags.random));
  ids.insert(ids.end(), all.begin(), all.end());
  return ids;
}

// A stored trajectory, and the root hash of the weights that it is played with;
// empty when there is nothing to play.
struct Item {
  WorkId id;
  v1::Trajectory trajectory;
  std::string root_hash;
};

absl::StatusOr<Item> Find(const RunFolder& run, const WorkId& id) {
  Item item;
  item.id = id;
  ATOD_ASSIGN_OR_RETURN(item.trajectory, learner::FindTrajectory(run, id));
  item.root_hash = WeightsOf(item.trajectory);
  if (!item.root_hash.empty() || item.trajectory.turns().empty()) return item;
  // An error is stored without its tokens; a step is of one version.
  ATOD_RETURN_IF_ERROR(learner::ReadTrajectories(
      learner::TrajectoryFile(run.spool(), id.purpose, id.step),
      [&](const v1::Trajectory& other) {
        if (item.root_hash.empty()) item.root_hash = WeightsOf(other);
      }));
  return item;
}

// How an episode that ended in an error compares with itself played again,
// after turns without a difference.
std::string ErrorText(const v1::Trajectory& stored,
                      const v1::Trajectory& replayed) {
  const v1::EpisodeError &then = stored.outcome().error(),
                         &now = replayed.outcome().error();
  const bool same = then.SerializeAsString() == now.SerializeAsString();
  return absl::StrCat(
      "ended in an error, the ", stored.turns_size(),
      " turns before it identical: ", then.kind(), ": ", then.message(),
      "; played again it ends ",
      same ? "in the same"
      : replayed.outcome().has_error()
          ? absl::StrCat("in another: ", now.kind(), ": ", now.message())
          : "in " + v1::DoneReason_Name(replayed.outcome().done_reason()));
}

absl::StatusOr<int> RunReplay(const ReplayFlags& flags) {
  ATOD_ASSIGN_OR_RETURN(const RunFolder run, RunFolder::Find(flags.run_dir));
  ATOD_ASSIGN_OR_RETURN(const config::LoadedConfig loaded,
                        config::LoadRunConfig({run.config()}));
  const v1::RunConfig& config = loaded.config;
  ATOD_ASSIGN_OR_RETURN(std::vector<WorkId> ids, Chosen(run, flags));
  if (ids.empty())
    return BadInput({.file = flags.run_dir,
                     .field = "TRAJECTORY_ID",
                     .found = "none",
                     .expected = "ids that `atod trajectories list` shows, or "
                                 "--random N of a run that has some"});
  std::vector<Item> stored;
  for (const WorkId& id : ids) {
    ATOD_ASSIGN_OR_RETURN(stored.emplace_back(), Find(run, id));
  }
  // One change of weights a version.
  std::stable_sort(
      stored.begin(), stored.end(),
      [](const Item& a, const Item& b) { return a.root_hash < b.root_hash; });

  model::SetComputeThreads(config.threads().rollout());
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                        Tokenizer::Load(config.model().path()));
  ATOD_ASSIGN_OR_RETURN(std::shared_ptr<const envs::Environment> env,
                        envs::OpenEnvironment(config.env()));
  envs::LocalCaller caller({{config.env().name(), std::move(env)}});
  LocalTeachers teachers;
  ATOD_RETURN_IF_ERROR(teachers.Open(config));
  ATOD_ASSIGN_OR_RETURN(engine::EngineOptions options,
                        rollout::EngineOptionsOf(config, *tokenizer));
  options.max_slots = 1;  // each is played alone
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<engine::ModelEngine> engine,
                        engine::OpenEngine(config.model().path(), options));

  if (!config.deterministic())
    absl::PrintF(
        "replay: the run was made with deterministic: false: its results "
        "depend on what was batched together, differences are to be "
        "expected\n");
  rollout::Replayer replayer(*engine, caller, *tokenizer,
                             teachers.empty() ? nullptr : &teachers,
                             static_cast<uint32_t>(engine->max_context()));
  std::string installed;
  size_t identical = 0, errors = 0;
  for (const auto& [id, trajectory, root_hash] : stored) {
    if (trajectory.outcome().has_error() && root_hash.empty()) {
      ++errors;
      const v1::EpisodeError& error = trajectory.outcome().error();
      absl::PrintF("%s: ended in an error, nothing to compare: %s: %s\n",
                   learner::FormatId(id), error.kind(), error.message());
      continue;
    }
    if (!root_hash.empty() && root_hash != installed) {
      ATOD_ASSIGN_OR_RETURN(const weights::WeightSnapshot snapshot,
                            FindWeights(run, config, root_hash));
      ATOD_RETURN_IF_ERROR(engine->InstallWeights(snapshot));
      installed = root_hash;
    }
    ATOD_ASSIGN_OR_RETURN(const v1::Trajectory replayed,
                          replayer.Play(trajectory));
    const std::string different =
        rollout::FirstDifference(trajectory, replayed, /*before_error=*/true);
    const bool failed = different.empty() && trajectory.outcome().has_error();
    errors += failed;
    identical += different.empty() && !failed;
    if (stored.size() > 1 || !different.empty() || failed)
      absl::PrintF("%s: %s\n", learner::FormatId(id),
                   failed              ? ErrorText(trajectory, replayed)
                   : different.empty() ? "identical"
                                       : different);
  }
  if (stored.size() > 1 || flags.random > 0) {
    absl::PrintF(
        "replay: %d of %d identical%s\n", identical, stored.size(),
        errors == 0 ? "" : absl::StrCat(", ", errors, " ended in errors"));
  } else if (identical == 1) {
    absl::PrintF("replay: identical\n");
  }
  return identical + errors == stored.size() ? 0 : 1;
}

// --- compare.

using Stored = std::map<WorkId, v1::Trajectory>;

absl::StatusOr<Stored> AllStored(const RunFolder& run) {
  Stored out;
  ATOD_RETURN_IF_ERROR(ForEachStored(run, [&](v1::Trajectory t) {
    const WorkId id = learner::IdOf(t);
    out[id] = std::move(t);
  }));
  return out;
}

absl::StatusOr<std::string> LastWeights(const RunFolder& run) {
  ATOD_ASSIGN_OR_RETURN(const learner::RunCheckpoint last,
                        learner::LoadCheckpoint(run.last().dir()));
  return last.root_hash;
}

absl::StatusOr<int> RunCompare(const std::string& a, const std::string& b) {
  ATOD_ASSIGN_OR_RETURN(const Stored left, AllStored(a));
  ATOD_ASSIGN_OR_RETURN(const Stored right, AllStored(b));
  ATOD_ASSIGN_OR_RETURN(const std::string weights_left, LastWeights(a));
  ATOD_ASSIGN_OR_RETURN(const std::string weights_right, LastWeights(b));
  std::vector<std::string> differences;
  size_t identical = 0;
  uint64_t tokens = 0;
  for (const auto& [id, t] : left) {
    const auto other = right.find(id);
    std::string different = other == right.end()
                                ? "only in " + a
                                : rollout::FirstDifference(t, other->second);
    if (!different.empty()) {
      differences.push_back(learner::FormatId(id) + ": " + different);
      continue;
    }
    ++identical;
    for (const v1::Sequence& sequence : t.sequences())
      for (const v1::Span& span : sequence.spans()) tokens += span.length();
  }
  for (const auto& [id, t] : right)
    if (!left.contains(id))
      differences.push_back(learner::FormatId(id) + ": only in " + b);
  for (const std::string& line : differences) absl::PrintF("%s\n", line);
  absl::PrintF(
      "compare: %d of %d trajectories identical, %d sampled tokens; last "
      "weights %s\n",
      identical, identical + differences.size(), tokens,
      weights_left == weights_right ? "identical (" + weights_left + ")"
                                    : weights_left + " and " + weights_right);
  return differences.empty() && weights_left == weights_right ? 0 : 1;
}

}  // namespace

void AddReplayCommand(Command app) {
  auto a = std::make_shared<std::string>();
  auto b = std::make_shared<std::string>();
  Command compare = app.Add(
      "compare",
      "two runs' stored trajectories and last weights, to the bit; exit 1 when "
      "they differ",
      [=] { return RunCompare(*a, *b); });
  compare.Arg("RUN_A", *a).Required();
  compare.Arg("RUN_B", *b).Required();

  auto flags = std::make_shared<ReplayFlags>();
  Command sub = app.Add(
      "replay",
      "play trajectories again alone and compare them to the bit; exit 1 when "
      "one differs",
      [=] { return RunReplay(*flags); });
  sub.Arg("RUN_DIR", flags->run_dir).Required();
  sub.Arg("TRAJECTORY_ID", flags->ids,
          "STEP/GROUP/SAMPLE or eval/STEP/GROUP/SAMPLE; several");
  sub.Arg("--random", flags->random, "so many random trajectories of the run");
  sub.Arg("--seed", flags->seed, "which --random picks (0)").WholeNumber();
}

}  // namespace atod::cli

#include "services/learner/run_fork.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"

namespace atod::learner {
namespace {

namespace fs = std::filesystem;

}  // namespace

std::string ForkOrigin::ToString() const {
  return run.empty() ? "" : absl::StrCat(run, "@", step);
}

absl::StatusOr<ForkOrigin> ParseFork(const std::string& from,
                                     const std::string& runs_dir) {
  const size_t at = from.rfind('@');
  ForkOrigin origin;
  if (at == from.npos || at == 0 ||
      !absl::SimpleAtoi(from.substr(at + 1), &origin.step)) {
    return BadInput({.field = "--fork",
                     .found = absl::StrCat("'", from, "'"),
                     .expected = "RUN@STEP"});
  }
  origin.run = from.substr(0, at);
  // The same whether or not the run is still there.
  if (!absl::StrContains(origin.run, '/') && !fs::is_directory(origin.run))
    origin.run = runs_dir + "/" + origin.run;
  return origin;
}

absl::StatusOr<FoundCheckpoint> OpenFork(const ForkOrigin& from) {
  FoundCheckpoint found;
  ATOD_ASSIGN_OR_RETURN(found.dir, CheckpointOfStep(from.run, from.step));
  absl::StatusOr<RunCheckpoint> state = LoadCheckpoint(found.dir);
  if (!state.ok()) {
    std::vector<uint32_t> others;
    for (const auto& [step, name] : Checkpoints(from.run))
      if (step != from.step) others.push_back(step);
    return absl::InvalidArgumentError(
        absl::StrCat(state.status().message(), "; its other checkpoints: ",
                     others.empty() ? "none" : absl::StrJoin(others, ", ")));
  }
  found.state = *std::move(state);
  return found;
}

absl::Status ForkRun(const ForkOrigin& from, const RunFolder& run) {
  ATOD_ASSIGN_OR_RETURN(const FoundCheckpoint chosen, OpenFork(from));
  // It may have been pruned.
  const std::string best =
      CheckpointOfStep(from.run, chosen.state.best_step).value_or("");
  if (!best.empty()) ATOD_RETURN_IF_ERROR(LoadCheckpoint(best).status());
  ATOD_RETURN_IF_ERROR(MakeDirs(run.dir()));
  const nlohmann::json json = {{"run", from.run}, {"step", from.step}};
  ATOD_RETURN_IF_ERROR(WriteFileAtomic(run.origin(), json.dump(1) + "\n"));
  std::error_code ec;
  const RunFolder parent(from.run);
  // Later steps are cut off by the resume that follows.
  const auto copy = [&](const std::string& path, const std::string& to) {
    if (fs::exists(path))
      fs::copy_file(path, to, fs::copy_options::overwrite_existing, ec);
    return ec ? absl::ErrnoToStatus(ec.value(), to + ": cannot copy " + path)
              : absl::OkStatus();
  };
  ATOD_RETURN_IF_ERROR(copy(parent.metrics(), run.metrics()));
  ATOD_RETURN_IF_ERROR(copy(parent.timings(), run.timings()));
  // With it the fork is made.
  ATOD_RETURN_IF_ERROR(CopyCheckpoint(chosen.dir, run, "last"));
  return best.empty() ? absl::OkStatus() : CopyCheckpoint(best, run, "best");
}

absl::StatusOr<ForkOrigin> ReadForkOrigin(const RunFolder& run) {
  const std::string path = run.origin();
  ForkOrigin origin;
  if (!fs::exists(path)) return origin;
  ATOD_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  ATOD_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, path));
  const auto parent = json.find("run"), step = json.find("step");
  if (parent == json.end() || !parent->is_string() || step == json.end() ||
      !step->is_number_unsigned()) {
    return BadInput({.file = path,
                     .field = "run, step",
                     .found = JsonPreview(json),
                     .expected = "a run's folder and a step"});
  }
  origin.run = parent->get<std::string>();
  origin.step = step->get<uint32_t>();
  return origin;
}

}  // namespace atod::learner

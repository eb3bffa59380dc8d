#include "services/learner/run_fork.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "services/learner/run_checkpoint.h"

namespace atod::learner {
namespace {

namespace fs = std::filesystem;

absl::StatusOr<ForkOrigin> ParseOrigin(const std::string& from,
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
  if (!fs::is_directory(origin.run)) origin.run = runs_dir + "/" + origin.run;
  return origin;
}

}  // namespace

std::string ForkOrigin::ToString() const {
  return run.empty() ? "" : absl::StrCat(run, "@", step);
}

absl::Status ForkRun(const std::string& from, const std::string& runs_dir,
                     const RunFolder& run) {
  ATOD_ASSIGN_OR_RETURN(const ForkOrigin origin, ParseOrigin(from, runs_dir));
  ATOD_RETURN_IF_ERROR(CheckpointOfStep(origin.run, origin.step).status());
  ATOD_RETURN_IF_ERROR(MakeDirs(run.dir()));
  std::error_code ec;
  const RunFolder parent(origin.run);
  // Later steps are cut off by the resume that follows.
  const auto copy = [&](const std::string& from, const std::string& to) {
    fs::copy_file(from, to, fs::copy_options::overwrite_existing, ec);
  };
  copy(parent.metrics(), run.metrics());
  copy(parent.timings(), run.timings());
  const nlohmann::json json = {{"run", origin.run}, {"step", origin.step}};
  ATOD_RETURN_IF_ERROR(WriteFileAtomic(run.origin(), json.dump(1) + "\n"));
  return CopyCheckpoint(parent, origin.step, run);
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

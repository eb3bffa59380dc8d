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

constexpr char kOrigin[] = "/fork.json";

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
                     const std::string& run_dir) {
  ATOD_ASSIGN_OR_RETURN(const ForkOrigin origin, ParseOrigin(from, runs_dir));
  ATOD_RETURN_IF_ERROR(CheckpointOfStep(origin.run, origin.step).status());
  ATOD_RETURN_IF_ERROR(MakeDirs(run_dir));
  std::error_code ec;
  for (const char* file : {"/metrics.jsonl", "/timings.jsonl"}) {
    // Later steps are cut off by the resume that follows.
    fs::copy_file(origin.run + file, run_dir + file,
                  fs::copy_options::overwrite_existing, ec);
  }
  const nlohmann::json json = {{"run", origin.run}, {"step", origin.step}};
  ATOD_RETURN_IF_ERROR(WriteFileAtomic(run_dir + kOrigin, json.dump(1) + "\n"));
  return CopyCheckpoint(origin.run, origin.step, run_dir);
}

absl::StatusOr<ForkOrigin> ReadForkOrigin(const std::string& run_dir) {
  const std::string path = run_dir + kOrigin;
  ForkOrigin origin;
  if (!fs::exists(path)) return origin;
  ATOD_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  ATOD_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, path));
  const auto run = json.find("run"), step = json.find("step");
  if (run == json.end() || !run->is_string() || step == json.end() ||
      !step->is_number_unsigned()) {
    return BadInput({.file = path,
                     .field = "run, step",
                     .found = JsonPreview(json),
                     .expected = "a run's folder and a step"});
  }
  origin.run = run->get<std::string>();
  origin.step = step->get<uint32_t>();
  return origin;
}

}  // namespace atod::learner

#include "common/run/run_folder.h"

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/file.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"

namespace atod {

namespace fs = std::filesystem;

RunFolder::RunFolder(std::string dir) : dir_(std::move(dir)) {
  while (dir_.size() > 1 && dir_.back() == '/') dir_.pop_back();
}

RunFolder::RunFolder(const std::string& runs_dir, const std::string& name)
    : RunFolder((fs::path(runs_dir) / name).string()) {}

absl::StatusOr<RunFolder> RunFolder::Find(const std::string& dir) {
  if (fs::is_directory(dir)) return RunFolder(dir);
  return BadInput({.file = dir,
                   .field = "RUN_DIR",
                   .found = fs::exists(dir) ? "a file" : "nothing",
                   .expected = "the folder of a run"});
}

std::string RunFolder::weights(const std::string& root_hash) const {
  return absl::StrCat(weights(), "/", root_hash, ".safetensors");
}

std::string RunFolder::panel(uint32_t step) const {
  return absl::StrFormat("%s/panel-%06u.jsonl", evals(), step);
}

std::string RunFolder::log(const std::string& service) const {
  return absl::StrCat(logs(), "/", service, ".log");
}

absl::StatusOr<std::unique_ptr<FolderLock>> RunFolder::Lock() const {
  ATOD_RETURN_IF_ERROR(MakeDirs(dir_));
  return FolderLock::Take(dir_);
}

absl::StatusOr<std::unique_ptr<FolderLock>> RunFolder::LockLogs() const {
  const auto take = [&](const std::string& folder) {
    auto lock = FolderLock::Take(folder);
    if (absl::IsFailedPrecondition(lock.status()))
      lock = BadInput({.file = dir_,
                       .field = "name",
                       .found = "a run that is going on",
                       .expected = "another name, or the end of that run"});
    return lock;
  };
  if (fs::exists(dir_)) ATOD_RETURN_IF_ERROR(take(dir_).status());
  ATOD_RETURN_IF_ERROR(MakeDirs(logs()));
  return take(logs());
}

}  // namespace atod

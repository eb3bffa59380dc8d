#include "services/learner/run_checkpoint.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/kill_point.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/base/warn.h"
#include "common/checkpoint/manifest.h"

namespace atod::learner {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr char kPrefix[] = "step-";
constexpr char kOld[] = ".old";

absl::Status FsError(const std::error_code& ec, const std::string& what) {
  return ec ? absl::ErrnoToStatus(ec.value(), what) : absl::OkStatus();
}

// `link` points at `target` (a name in the same folder) from one moment on.
absl::Status Link(const std::string& folder, const std::string& link,
                  const std::string& target) {
  std::error_code ec;
  const std::string part = absl::StrCat(folder, "/.", link, ".part");
  fs::remove(part, ec);
  fs::create_directory_symlink(target, part, ec);
  ATOD_RETURN_IF_ERROR(FsError(ec, absl::StrCat(part, ": cannot link")));
  fs::rename(part, absl::StrCat(folder, "/", link), ec);
  return FsError(ec, absl::StrCat(folder, "/", link, ": cannot link"));
}

std::string Target(const std::string& folder, const std::string& link) {
  std::error_code ec;
  return fs::read_symlink(absl::StrCat(folder, "/", link), ec).string();
}

std::string Part(const std::string& folder, const std::string& name) {
  return absl::StrCat(folder, "/.", name, ".part");
}

// A finished checkpoint gets its name, from one moment to the next unless a
// checkpoint of the same step, from an earlier life, makes way.
absl::Status PutInPlace(const std::string& folder, const std::string& name) {
  const std::string place = absl::StrCat(folder, "/", name);
  const std::string old = absl::StrCat(folder, "/.", name, kOld);
  std::error_code ec;
  fs::remove_all(old, ec);
  fs::rename(place, old, ec);
  fs::rename(Part(folder, name), place, ec);
  ATOD_RETURN_IF_ERROR(
      FsError(ec, absl::StrCat(place, ": cannot put in place")));
  ATOD_RETURN_IF_ERROR(SyncPath(folder));
  fs::remove_all(old, ec);
  return absl::OkStatus();
}

// Complete checkpoints by step.
std::map<uint32_t, std::string> List(const std::string& folder) {
  std::map<uint32_t, std::string> out;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(folder, ec)) {
    const std::string name = entry.path().filename();
    uint32_t step = 0;
    if (name.rfind(kPrefix, 0) == 0 &&
        absl::SimpleAtoi(name.substr(sizeof(kPrefix) - 1), &step) &&
        fs::exists(entry.path() / kManifestName)) {
      out[step] = name;
    }
  }
  return out;
}

void Prune(const std::string& folder, uint32_t keep) {
  const std::map<uint32_t, std::string> all = List(folder);
  std::set<std::string> kept = {Target(folder, "last"), Target(folder, "best")};
  for (auto it = all.rbegin(); it != all.rend() && keep > 0; ++it, --keep)
    kept.insert(it->second);
  std::error_code ec;
  for (const auto& [step, name] : all) {
    if (kept.contains(name)) continue;
    // Half gone, it must not look complete.
    fs::remove(fs::path(folder) / name / kManifestName, ec);
    fs::remove_all(folder + "/" + name, ec);
  }
}

json ToJson(const RunCheckpoint& s) {
  return {{"run", s.run},
          {"step", s.step},
          {"updates", s.updates},
          {"incarnation", s.incarnation},
          {"version", s.version},
          {"root_hash", s.root_hash},
          {"evals", s.evals},
          {"best_step", s.best_step},
          {"pending", s.pending},
          {"set_aside", s.set_aside},
          {"config_hash", s.config_hash},
          {"tokenizer_hash", s.tokenizer_hash},
          {"train_hash", s.train_hash},
          {"panel_hash", s.panel_hash},
          {"teacher_hashes", s.teacher_hashes},
          {"world_size", s.world_size}};
}

// A manifest vouches only for what it lists.
absl::Status CheckListed(const std::string& dir, const Manifest& manifest) {
  for (const char* path :
       {"config.resolved.yaml", "ledger.db", "model/config.json",
        "model/model.safetensors", "optimizer.safetensors", "state.json"}) {
    if (std::none_of(manifest.files.begin(), manifest.files.end(),
                     [&](const ManifestFile& f) { return f.path == path; })) {
      return BadInput({.file = absl::StrCat(dir, "/", kManifestName),
                       .field = "files",
                       .found = absl::StrCat("no ", path),
                       .expected = "every file of a checkpoint"});
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status SaveCheckpoint(
    const RunFolder& run, const RunCheckpoint& state, bool best, uint32_t keep,
    const std::function<absl::Status(const CheckpointFolder&)>& write) {
  const std::string folder = run.checkpoints();
  const std::string name = absl::StrCat(kPrefix, state.step);
  const std::string part = Part(folder, name);
  std::error_code ec;
  fs::remove_all(part, ec);
  ATOD_RETURN_IF_ERROR(MakeDirs(part));
  ATOD_RETURN_IF_ERROR(write(part));
  ATOD_RETURN_IF_ERROR(
      // A reason is a peer's text: it may be no UTF-8.
      WriteFileAtomic(
          CheckpointFolder(part).state(),
          ToJson(state).dump(1, ' ', false, json::error_handler_t::replace) +
              "\n"));
  KillPoint(KillLabel::kCheckpointDataWritten);
  ATOD_RETURN_IF_ERROR(WriteManifest(part, ToJson(state)));
  ATOD_RETURN_IF_ERROR(PutInPlace(folder, name));
  KillPoint(KillLabel::kManifestRenamed);
  ATOD_RETURN_IF_ERROR(Link(folder, "last", name));
  if (best) ATOD_RETURN_IF_ERROR(Link(folder, "best", name));
  Prune(folder, keep);
  return absl::OkStatus();
}

void TidyCheckpoints(const RunFolder& run) {
  const fs::path folder = run.checkpoints();
  std::error_code ec;
  std::vector<fs::path> left;
  for (const auto& entry : fs::directory_iterator(folder, ec))
    if (entry.path().filename().string().starts_with(
            absl::StrCat(".", kPrefix)))
      left.push_back(entry.path());
  for (const fs::path& path : left) {
    const fs::path place = folder / path.stem().string().substr(1);
    if (path.extension() == kOld && !fs::exists(place)) {
      fs::rename(path, place, ec);
    } else {
      fs::remove_all(path, ec);
    }
  }
}

std::map<uint32_t, std::string> Checkpoints(const RunFolder& run) {
  std::map<uint32_t, std::string> all = List(run.checkpoints());
  for (auto& [step, name] : all)
    name = absl::StrCat(run.checkpoints(), "/", name);
  return all;
}

absl::StatusOr<std::string> FindCheckpoint(const RunFolder& run,
                                           const std::string& resume) {
  if (resume != "latest") {
    if (fs::exists(fs::path(resume) / kManifestName)) return resume;
    return BadInput(
        {.file = resume,
         .field = "--resume",
         .found = fs::exists(resume) ? "an incomplete checkpoint" : "nothing",
         .expected = "`latest` or the folder of a checkpoint"});
  }
  const std::string folder = run.checkpoints();
  const std::map<uint32_t, std::string> all = List(folder);
  const std::string last = Target(folder, "last");
  if (!last.empty() &&
      fs::exists(absl::StrCat(folder, "/", last, "/", kManifestName))) {
    return absl::StrCat(folder, "/", last);
  }
  return all.empty() ? std::string()
                     : absl::StrCat(folder, "/", all.rbegin()->second);
}

absl::StatusOr<RunCheckpoint> LoadCheckpoint(const std::string& dir) {
  const auto manifest = VerifyManifest(dir);
  // Damage is no passing trouble: a restart finds it again.
  if (!manifest.ok())
    return absl::InvalidArgumentError(manifest.status().message());
  ATOD_RETURN_IF_ERROR(CheckListed(dir, *manifest));
  const std::string path = CheckpointFolder(dir).state();
  ATOD_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  ATOD_ASSIGN_OR_RETURN(const json j, ParseJson(text, path));
  RunCheckpoint s;
  try {
    s.run = j.at("run");
    s.step = j.at("step");
    s.updates = j.at("updates");
    s.incarnation = j.at("incarnation");
    s.version = j.at("version");
    s.root_hash = j.at("root_hash");
    s.evals = j.at("evals").get<std::vector<double>>();
    s.best_step = j.at("best_step");
    for (const auto& [tag, value] : j.at("pending").items())
      s.pending[tag] = value.is_null() ? NAN : value.get<double>();
    if (j.contains("set_aside"))  // older checkpoints have none
      s.set_aside = j.at("set_aside").get<std::map<std::string, std::string>>();
    s.config_hash = j.at("config_hash");
    s.tokenizer_hash = j.at("tokenizer_hash");
    s.train_hash = j.at("train_hash");
    s.panel_hash = j.at("panel_hash");
    s.teacher_hashes =
        j.at("teacher_hashes").get<std::map<std::string, std::string>>();
    s.world_size = j.at("world_size");
  } catch (const json::exception& e) {
    return BadInput({.file = path,
                     .field = "state",
                     .found = e.what(),
                     .expected = "what a learner writes"});
  }
  return s;
}

absl::StatusOr<FoundCheckpoint> OpenCheckpoint(const RunFolder& run,
                                               const std::string& resume) {
  FoundCheckpoint found;
  const std::string folder = run.checkpoints();
  const std::map<uint32_t, std::string> all = List(folder);
  if (resume != "latest") {
    ATOD_ASSIGN_OR_RETURN(found.dir, FindCheckpoint(run, resume));
    absl::StatusOr<RunCheckpoint> state = LoadCheckpoint(found.dir);
    if (!state.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(
          state.status().message(), "; `--resume latest` goes on from the ",
          "newest checkpoint that is whole"));
    }
    found.state = *std::move(state);
    return found;
  }
  // `last` first: what is newer is of a life that was given up, and a folder
  // without its manifest is damaged when `last` points at it.
  std::vector<std::string> candidates;
  const std::string last = Target(folder, "last");
  if (!last.empty()) candidates.push_back(last);
  for (auto it = all.rbegin(); it != all.rend(); ++it)
    if (it->second != last) candidates.push_back(it->second);
  std::string damage;  // of each one passed over
  for (const std::string& name : candidates) {
    const std::string dir = absl::StrCat(folder, "/", name);
    absl::StatusOr<RunCheckpoint> state = LoadCheckpoint(dir);
    if (state.ok()) {
      if (!damage.empty()) {
        LogWarning(absl::StrCat("damaged checkpoint passed over: ", damage,
                                "; going on after step ", state->step, " from ",
                                dir));
      }
      return FoundCheckpoint{dir, *std::move(state)};
    }
    absl::StrAppend(&damage, damage.empty() ? "" : "; ",
                    state.status().message());
  }
  if (damage.empty()) return found;
  return absl::InvalidArgumentError(
      absl::StrCat(damage, "; no other checkpoint in ", folder,
                   " is whole: restore one, or start under another name"));
}

absl::Status CheckSameRun(const RunCheckpoint& before, const RunCheckpoint& now,
                          const std::string& tokenizer_file_hash) {
  const auto same = [](const std::string& field, const std::string& found,
                       const std::string& expected) {
    if (expected.empty() || found == expected) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat(field, ": found ", found,
                                                      ", expected ", expected,
                                                      " as in the checkpoint"));
  };
  ATOD_RETURN_IF_ERROR(same("content hash of the training split",
                            now.train_hash, before.train_hash));
  ATOD_RETURN_IF_ERROR(
      same("evaluation panel", now.panel_hash, before.panel_hash));
  if (before.tokenizer_hash != tokenizer_file_hash)
    ATOD_RETURN_IF_ERROR(
        same("tokenizer_hash", now.tokenizer_hash, before.tokenizer_hash));
  for (const auto& [name, hash] : now.teacher_hashes) {
    const auto old = before.teacher_hashes.find(name);
    if (old != before.teacher_hashes.end())
      ATOD_RETURN_IF_ERROR(same(absl::StrCat("weights_hash of teacher ", name),
                                hash, old->second));
  }
  if (before.world_size != now.world_size) {
    spdlog::warn(
        "{} learner ranks, {} before: sums round otherwise, results differ in "
        "the last bits",
        now.world_size, before.world_size);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> CheckpointOfStep(const RunFolder& run,
                                             uint32_t step) {
  const std::string folder = run.checkpoints();
  const std::map<uint32_t, std::string> all = List(folder);
  const auto found = all.find(step);
  if (found != all.end()) return folder + "/" + found->second;
  return BadInput(
      {.file = folder,
       .field = "--fork",
       .found = absl::StrCat("no checkpoint of step ", step),
       .expected = all.empty()
                       ? "a run that has checkpoints"
                       : absl::StrCat(
                             "one of ",
                             absl::StrJoin(all, ", ",
                                           [](std::string* out, const auto& c) {
                                             absl::StrAppend(out, c.first);
                                           }))});
}

absl::Status CopyCheckpoint(const std::string& dir, const RunFolder& to,
                            const std::string& link) {
  const std::string folder = to.checkpoints(), name = fs::path(dir).filename(),
                    part = Part(folder, name);
  ATOD_RETURN_IF_ERROR(MakeDirs(folder));
  std::error_code ec;
  fs::remove_all(part, ec);
  fs::copy(dir, part, fs::copy_options::recursive, ec);
  ATOD_RETURN_IF_ERROR(FsError(ec, absl::StrCat(part, ": cannot copy")));
  ATOD_RETURN_IF_ERROR(VerifyManifest(part).status());
  ATOD_RETURN_IF_ERROR(PutInPlace(folder, name));
  return Link(folder, link, name);
}

absl::Status PointLast(const RunFolder& run, const std::string& dir) {
  const std::string folder = run.checkpoints();
  std::error_code ec;
  const fs::path real = fs::canonical(dir, ec);
  if (ec || real.parent_path() != fs::canonical(folder, ec))
    return absl::OkStatus();
  return Link(folder, "last", real.filename());
}

}  // namespace atod::learner

#include "common/checkpoint/manifest.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/status_macros.h"
#include "common/checkpoint/mapped_file.h"

namespace atod {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// A path that stays below the folder, in its shortest form.
bool IsInside(const std::string& path) {
  const fs::path p = path;
  return !path.empty() && p.is_relative() && p == p.lexically_normal() &&
         p.has_filename() && *p.begin() != ".." && *p.begin() != ".";
}

absl::StatusOr<std::vector<std::string>> FilesBelow(const fs::path& dir) {
  std::vector<std::string> out;
  std::error_code error;
  fs::recursive_directory_iterator it(dir, error), end;
  for (; !error && it != end; it.increment(error)) {
    if (!it->is_regular_file(error) || error) continue;
    const std::string path =
        it->path().lexically_relative(dir).generic_string();
    if (path != kManifestName) out.push_back(path);
  }
  if (error) {
    return absl::ErrnoToStatus(
        error.value(), absl::StrCat(dir.string(), ": cannot list the folder"));
  }
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace

absl::Status WriteManifest(const std::string& dir, const json& info) {
  const fs::path folder = dir;
  ATOD_ASSIGN_OR_RETURN(const std::vector<std::string> paths,
                        FilesBelow(folder));
  json files = json::array();
  std::set<std::string> folders;
  for (const std::string& path : paths) {
    const fs::path whole = folder / path;
    ATOD_RETURN_IF_ERROR(SyncPath(whole.string()));
    folders.insert(whole.parent_path().string());
    ATOD_ASSIGN_OR_RETURN(const auto file, MappedFile::Open(whole.string()));
    files.push_back({{"path", path},
                     {"size", file->bytes().size()},
                     {"xxh3_128", HashHex(file->bytes())}});
  }
  for (const std::string& path : folders) ATOD_RETURN_IF_ERROR(SyncPath(path));
  const json root = {{"files", files}, {"info", info}};
  return WriteFileAtomic(
      (folder / kManifestName).string(),
      root.dump(1, ' ', false, json::error_handler_t::replace) + "\n");
}

absl::StatusOr<Manifest> ReadManifest(const std::string& dir) {
  const std::string path = (fs::path(dir) / kManifestName).string();
  ATOD_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  ATOD_ASSIGN_OR_RETURN(const json root, ParseJson(text, path));
  const json files = root.is_object() ? root.value("files", json()) : json();
  if (!files.is_array() || files.empty()) {
    return BadInput({.file = path,
                     .field = "files",
                     .found = JsonPreview(files),
                     .expected = "an array of the folder's files"});
  }
  Manifest out;
  out.info = root.value("info", json());
  for (const json& file : files) {
    const json name = file.is_object() ? file.value("path", json()) : json();
    const json size = file.is_object() ? file.value("size", json()) : json();
    const json hash =
        file.is_object() ? file.value("xxh3_128", json()) : json();
    if (!name.is_string() || !IsInside(name.get<std::string>()) ||
        !size.is_number_unsigned() || !hash.is_string()) {
      return BadInput({.file = path,
                       .field = absl::StrCat("files[", out.files.size(), "]"),
                       .found = JsonPreview(file),
                       .expected = "path (inside the folder), size and "
                                   "xxh3_128"});
    }
    out.files.push_back({.path = name.get<std::string>(),
                         .size = size.get<uint64_t>(),
                         .xxh3_128 = hash.get<std::string>()});
  }
  return out;
}

std::vector<Problem> ManifestFaults(const std::string& dir,
                                    const Manifest& manifest) {
  std::vector<Problem> faults;
  for (const ManifestFile& listed : manifest.files) {
    const std::string path = (fs::path(dir) / listed.path).string();
    const auto file = MappedFile::Open(path);
    if (!file.ok()) {
      faults.push_back({.file = path,
                        .found = absl::IsNotFound(file.status())
                                     ? "no such file"
                                     : std::string(file.status().message()),
                        .expected = "the file that the manifest lists"});
    } else if ((*file)->bytes().size() != listed.size) {
      faults.push_back(
          {.file = path,
           .field = "size",
           .found = absl::StrCat((*file)->bytes().size(), " bytes"),
           .expected = absl::StrCat(listed.size)});
    } else if (HashHex((*file)->bytes()) != listed.xxh3_128) {
      faults.push_back({.file = path,
                        .field = "xxh3_128",
                        .found = HashHex((*file)->bytes()),
                        .expected = listed.xxh3_128});
    }
  }
  return faults;
}

absl::StatusOr<Manifest> VerifyManifest(const std::string& dir) {
  ATOD_ASSIGN_OR_RETURN(Manifest manifest, ReadManifest(dir));
  const std::vector<Problem> faults = ManifestFaults(dir, manifest);
  if (!faults.empty()) {
    return absl::DataLossError(BadInput(faults.front()).message());
  }
  return manifest;
}

}  // namespace atod

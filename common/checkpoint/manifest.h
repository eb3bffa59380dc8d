#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/problem.h"

namespace atod {

// A checkpoint folder is complete when it holds a MANIFEST.json: it is written
// last, names every file below the folder with size and XXH3-128, and carries
// what the writer wants to know again.
inline constexpr char kManifestName[] = "MANIFEST.json";

struct ManifestFile {
  std::string path;  // relative to the folder, with '/'
  uint64_t size = 0;
  std::string xxh3_128;  // 32 hex digits
};

struct Manifest {
  std::vector<ManifestFile> files;  // sorted by path
  nlohmann::json info;
};

// Hashes and syncs every regular file below `dir` and writes the manifest.
// Files that are not meant to belong to the checkpoint must be gone by then.
absl::Status WriteManifest(const std::string& dir, const nlohmann::json& info);

// Reads DIR/MANIFEST.json without looking at the files. NOT_FOUND when there
// is none: the folder is incomplete. One that lists no file is refused.
absl::StatusOr<Manifest> ReadManifest(const std::string& dir);

// Every listed file that is missing, or has another size or hash. Files that
// are not listed are no fault.
std::vector<Problem> ManifestFaults(const std::string& dir,
                                    const Manifest& manifest);

// ReadManifest, then the first fault as DATA_LOSS.
absl::StatusOr<Manifest> VerifyManifest(const std::string& dir);

}  // namespace atod

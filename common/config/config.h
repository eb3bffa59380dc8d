#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "atod/v1/config.pb.h"

namespace atod::config {

// A configuration in which every section exists and every key that has a
// default is set.
struct LoadedConfig {
  v1::RunConfig config;
  // Dotted path of every set key ("optimizer.lr", "teachers.0.path") to where
  // its value came from: "default", "FILE:LINE" or "--set".
  std::map<std::string, std::string> sources;
};

// Reads `paths` (none: defaults only); a later file overrides single keys of
// the earlier ones, a list is replaced as a whole. Then applies `sets`, each
// "a.b=value" ("teachers.0.path=DIR" sets, or appends, an element of a list).
// Refuses, with file, line, found and expected: unknown keys (names the
// nearest), wrong types, values out of bounds, keys given twice, tabs, broken
// YAML.
absl::StatusOr<LoadedConfig> LoadRunConfig(
    const std::vector<std::string>& paths,
    const std::vector<std::string>& sets = {});

// The same from text; `file` names it in messages.
absl::StatusOr<LoadedConfig> ParseRunConfig(
    const std::string& yaml, const std::string& file,
    const std::vector<std::string>& sets = {});

// Whether the back end cpu-exact has this device and dtype: the default of
// `deterministic`.
bool ExactCanRun(const v1::RunConfig& config);

// Tokens whose keys and values a rollout worker has room for, and a teacher
// keeps (0 but in layout growing): the configured ones, or all there can be.
uint64_t RolloutKvTokens(const v1::RunConfig& config);
uint64_t TeacherKvTokens(const v1::RunConfig& config, int teacher);

// Refuses values that are good alone but not together, and what bounds cannot
// say. Every way of loading a configuration ends with it.
absl::Status CheckTogether(const LoadedConfig& loaded);

// YAML with a comment at each key that says where its value came from.
std::string PrintConfig(const LoadedConfig& loaded);

// Canonical YAML (config.resolved.yaml); loads back to an equal message.
std::string ResolvedYaml(const v1::RunConfig& config);

}  // namespace atod::config

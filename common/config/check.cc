#include <algorithm>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/base/temperature.h"
#include "common/config/config.h"

namespace atod::config {
namespace {

// Leaves room in a file system's 255 bytes for what is written beside it.
constexpr size_t kLongestName = 200;

absl::Status Refuse(const LoadedConfig& loaded, const std::string& field,
                    const std::string& found, const std::string& expected) {
  const std::string& source = loaded.sources.at(field);
  return BadInput({.file = source == "default" ? "" : source,
                   .field = field,
                   .found = found,
                   .expected = expected});
}

// The name becomes a folder below runs_dir and a label of metrics.
absl::Status CheckName(const LoadedConfig& loaded) {
  const std::string& name = loaded.config.name();
  const bool plain = std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
  });
  if (name.size() > kLongestName)
    return Refuse(loaded, "name", absl::StrCat(name.size(), " characters"),
                  absl::StrCat("at most ", kLongestName));
  if (plain && !name.empty() && name[0] != '.') return absl::OkStatus();
  return Refuse(loaded, "name", absl::StrCat("'", name, "'"),
                "letters, digits, '-', '_' and '.', not '.' first");
}

absl::Status CheckTemperature(const LoadedConfig& loaded,
                              const std::string& field, double value) {
  if (value == 0 || value >= kMinTemperature) return absl::OkStatus();
  return Refuse(loaded, field, absl::StrCat(value),
                absl::StrCat("0 (greedy), or at least ", kMinTemperature));
}

// The longest request fits, and a token of each response under way.
absl::Status CheckRollout(const LoadedConfig& loaded) {
  const v1::RolloutConfig& rollout = loaded.config.rollout();
  const uint32_t context = loaded.config.model().max_context();
  if (rollout.kv_tokens() > 0 && rollout.kv_tokens() < context)
    return Refuse(loaded, "rollout.kv_tokens",
                  absl::StrCat(rollout.kv_tokens()),
                  absl::StrCat("0, or at least model.max_context, ", context));
  if (rollout.batch_tokens() >= rollout.slots()) return absl::OkStatus();
  // Named is what the user wrote.
  if (loaded.sources.at("rollout.batch_tokens") != "default")
    return Refuse(loaded, "rollout.batch_tokens",
                  absl::StrCat(rollout.batch_tokens()),
                  absl::StrCat("at least rollout.slots, ", rollout.slots()));
  return Refuse(
      loaded, "rollout.slots", absl::StrCat(rollout.slots()),
      absl::StrCat("at most rollout.batch_tokens, ", rollout.batch_tokens()));
}

// The configured ones; 0: of all episodes under way, as long as they can be.
uint64_t KvTokens(const v1::RunConfig& config, uint64_t configured) {
  return configured > 0 ? configured
                        : uint64_t{config.rollout().slots()} *
                              config.model().max_context();
}

}  // namespace

bool ExactCanRun(const v1::RunConfig& config) {
  return config.device() == "cpu" && config.model().dtype() == "float32";
}

uint64_t RolloutKvTokens(const v1::RunConfig& config) {
  return KvTokens(config, config.rollout().kv_tokens());
}

uint64_t TeacherKvTokens(const v1::RunConfig& config, int teacher) {
  if (config.layout() != "growing" || teacher >= config.teachers_size())
    return 0;
  return KvTokens(config, config.teachers(teacher).kv_tokens());
}

absl::Status CheckTogether(const LoadedConfig& loaded) {
  ATOD_RETURN_IF_ERROR(CheckName(loaded));
  ATOD_RETURN_IF_ERROR(CheckRollout(loaded));
  if (loaded.config.deterministic() && !ExactCanRun(loaded.config))
    return Refuse(
        loaded, "deterministic",
        absl::StrCat("true with device ", loaded.config.device(),
                     " and model.dtype ", loaded.config.model().dtype()),
        "device cpu and model.dtype float32, or deterministic: "
        "false (results within tolerances)");
  const v1::SamplingSection& sampling = loaded.config.sampling();
  ATOD_RETURN_IF_ERROR(CheckTemperature(loaded, "sampling.train.temperature",
                                        sampling.train().temperature()));
  ATOD_RETURN_IF_ERROR(CheckTemperature(loaded, "sampling.eval_temperature",
                                        sampling.eval_temperature()));
  const uint32_t context = loaded.config.model().max_context();
  const uint32_t response = sampling.train().max_tokens();
  if (response < context) return absl::OkStatus();
  // Named is what the user wrote.
  if (loaded.sources.at("sampling.train.max_tokens") != "default")
    return Refuse(loaded, "sampling.train.max_tokens", absl::StrCat(response),
                  absl::StrCat("less than model.max_context, ", context,
                               ": prompt and response share it"));
  return Refuse(loaded, "model.max_context", absl::StrCat(context),
                absl::StrCat("more than sampling.train.max_tokens, ", response,
                             ": prompt and response share it"));
}

}  // namespace atod::config

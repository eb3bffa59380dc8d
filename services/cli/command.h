#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"

namespace atod::cli {

// What a sub-command does once its flags are parsed: the exit status (0, or 1
// for a check that failed), or an error, printed as one line
// `error: MESSAGE` with exit status 2.
using Run = std::function<absl::StatusOr<int>()>;

// Adds sub-command `name`. The caller adds its flags to the returned app,
// binding them to variables that `run` captures by shared_ptr.
CLI::App* AddCommand(CLI::App& app, const std::string& name,
                     const std::string& summary, Run run);

// --config FILE and --set KEY=VALUE, each as often as wanted, of a command that
// reads a run's configuration (config::LoadRunConfig).
void AddConfigFlags(CLI::App& app, std::vector<std::string>& files,
                    std::vector<std::string>& sets);

// Checks of flags. CLI11 alone takes -1 as the largest unsigned number, and NaN
// as inside any range.
CLI::Validator WholeNumber(uint64_t low = 0, uint64_t high = UINT64_MAX);
CLI::Validator Number(double low, double high);

// 0 for all cores, as threads.* of a configuration.
inline CLI::Validator Threads() { return WholeNumber(0, 1024); }

}  // namespace atod::cli

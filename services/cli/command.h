#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace atod::cli {

// What a sub-command does once its flags are parsed: the exit status (0, or 1
// for a check that failed), or an error, printed as one line
// `error: MESSAGE` with exit status 2.
using Run = std::function<absl::StatusOr<int>()>;

// A flag or an argument while it is declared. This and Command are handles on
// the parser's own, which command.cc alone includes: it takes 20 s to compile.
class Argument {
 public:
  explicit Argument(CLI::Option* option) : option_(option) {}

  Argument Required();
  Argument ShowDefault();  // in the help: what the variable holds now
  Argument Type(const std::string& name);      // in the help
  Argument OrAlone(const std::string& value);  // what the flag alone means
  // Checks.
  Argument OneOf(const std::vector<std::string>& choices);
  // CLI11 alone takes -1 as the largest unsigned number, and NaN as inside any
  // range.
  Argument WholeNumber(uint64_t low = 0, uint64_t high = UINT64_MAX);
  Argument Number(double low, double high);
  Argument Threads();  // 0 for all cores, as threads.* of a configuration
  template <typename T>
  Argument Range(T low, T high);
  Argument Positive();
  Argument NonNegative();

 private:
  CLI::Option* option_;
};

// The program itself, or a sub-command of it.
class Command {
 public:
  explicit Command(CLI::App* app = nullptr) : app_(app) {}

  // The caller declares the flags of the new sub-command, and binds them to
  // variables that `run` captures by shared_ptr. Without `run` it needs a
  // sub-command of its own.
  Command Add(const std::string& name, const std::string& summary,
              Run run = nullptr);

  // "--flag VALUE", or with a name without dashes an argument in its place.
  template <typename T>
  Argument Arg(const std::string& name, T& value, const std::string& doc = "");
  Argument Flag(const std::string& name, bool& value, const std::string& doc);

  // --config FILE and --set KEY=VALUE, each as often as wanted, of a command
  // that reads a run's configuration (config::LoadRunConfig).
  void ConfigFlags(std::vector<std::string>& files,
                   std::vector<std::string>& sets);

  // Whether the command line has it.
  bool Has(const std::string& name) const;

 private:
  CLI::App* app_;
};

// Parses the command line and runs the command that it names, of those that
// `add` declares. The exit status.
int RunCommandLine(int argc, char** argv, const std::string& summary,
                   const std::function<void(Command)>& add);

}  // namespace atod::cli

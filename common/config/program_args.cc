#include "common/config/program_args.h"

#include <iostream>
#include <vector>

#include "CLI/CLI.hpp"
#include "common/base/output.h"
#include "common/base/printable.h"

namespace atod::config {
namespace {

int Report(const absl::Status& status, std::ostream& err) {
  if (status.ok()) return 0;
  err << "error: " << OneLine(std::string(status.message())) << std::endl;
  // A peer or a machine that does not fit fits no better after a restart.
  return absl::IsInvalidArgument(status) || absl::IsNotFound(status) ||
                 absl::IsFailedPrecondition(status)
             ? 2
             : 1;
}

}  // namespace

ProgramStart ParseProgramArgs(const std::string& name,
                              const std::string& summary, int argc,
                              const char* const* argv, std::ostream& out,
                              std::ostream& err) {
  CLI::App app{summary, name};
  std::vector<std::string> paths;
  std::vector<std::string> sets;
  bool print_config = false;
  ProgramArgs args;
  app.add_option("--config", paths,
                 "Configuration of the run (YAML); a further one overrides "
                 "keys of those before it")
      ->type_name("FILE")
      ->allow_extra_args(false);
  app.add_option("--set", sets, "Overrides one key; may be given again")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  app.add_flag("--print-config", print_config,
               "Prints the configuration with the source of every value");
  app.add_flag("--dry-run", args.dry_run,
               "Checks configuration and files, starts nothing");
  app.add_option("--index", args.index,
                 "Number of this process among several equal ones, from 0")
      ->type_name("N");
  app.add_option("--resume", args.resume,
                 "Learner: go on from `latest` checkpoint (from the start when "
                 "there is none) or from this one")
      ->type_name("latest|DIR")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app.add_option("--fork", args.fork,
                 "Learner: start where another run stood at its checkpoint of "
                 "a step")
      ->type_name("RUN@STEP");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) {
      out << app.help();
      return {};
    }
    err << "error: " << e.what() << " (" << name
        << " --help lists what there is)" << std::endl;
    return {std::nullopt, 2};
  }
  absl::StatusOr<LoadedConfig> loaded = LoadRunConfig(paths, sets);
  if (!loaded.ok()) {
    Report(loaded.status(), err);
    return {std::nullopt, 2};
  }
  if (print_config) {
    out << PrintConfig(*loaded);
    return {};
  }
  args.loaded = *std::move(loaded);
  return {std::move(args), 0};
}

ProgramStart ParseProgramArgs(const std::string& name,
                              const std::string& summary, int argc,
                              const char* const* argv) {
  ProgramStart start =
      ParseProgramArgs(name, summary, argc, argv, std::cout, std::cerr);
  if (const absl::Status output = FinishOutput(); !output.ok()) {
    Report(output, std::cerr);
    return {std::nullopt, 2};
  }
  return start;
}

int ExitStatus(const absl::Status& status) { return Report(status, std::cerr); }

}  // namespace atod::config

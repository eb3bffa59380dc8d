#include "services/cli/command.h"

#include <cstdio>
#include <optional>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/base/edit_distance.h"
#include "common/base/output.h"
#include "common/base/printable.h"

namespace atod::cli {
namespace {

int exit_status = 0;

// What is wrong with the command line: the first word that names no command,
// or what CLI11 says.
std::string Explain(CLI::App& app, int argc, char** argv,
                    const CLI::ParseError& error) {
  CLI::App* group = &app;
  for (int i = 1; i < argc && argv[i][0] != '-'; ++i) {
    CLI::App* called = nullptr;
    std::string nearest;
    for (CLI::App* sub :
         group->get_subcommands([](CLI::App*) { return true; })) {
      const std::string& name = sub->get_name();
      if (name == argv[i]) called = sub;
      if (nearest.empty() ||
          EditDistance(name, argv[i]) < EditDistance(nearest, argv[i]))
        nearest = name;
    }
    if (nearest.empty()) break;  // it has no commands of its own
    if (called == nullptr) {
      return group->get_name() + ": command: found '" + argv[i] +
             "', expected a command (nearest: " + nearest + ")";
    }
    group = called;
  }
  return error.what();
}

int Failed(const absl::Status& status) {
  std::fflush(stdout);  // in a common log the error comes last
  std::fprintf(stderr, "error: %s\n",
               OneLine(std::string(status.message())).c_str());
  return 2;
}

// The exit status once all output is where it belongs.
int Finished(int status) {
  const absl::Status output = FinishOutput();
  return output.ok() ? status : Failed(output);
}

}  // namespace

Argument Argument::Required() {
  option_->required();
  return *this;
}

Argument Argument::ShowDefault() {
  option_->capture_default_str();
  return *this;
}

Argument Argument::Type(const std::string& name) {
  option_->type_name(name);
  return *this;
}

Argument Argument::OrAlone(const std::string& value) {
  option_->expected(0, 1)->default_str(value);
  return *this;
}

Argument Argument::OneOf(const std::vector<std::string>& choices) {
  option_->check(CLI::IsMember(choices));
  return *this;
}

Argument Argument::WholeNumber(uint64_t low, uint64_t high) {
  option_->check(CLI::Validator(
      [=](std::string& text) {
        uint64_t value;
        if (absl::SimpleAtoi(text, &value) && low <= value && value <= high)
          return std::string();
        return absl::StrCat("found ", text, ", expected a whole number from ",
                            low, " to ", high);
      },
      ""));
  return *this;
}

Argument Argument::Number(double low, double high) {
  option_->check(CLI::Validator(
      [=](std::string& text) {
        double value;
        if (absl::SimpleAtod(text, &value) && low <= value && value <= high)
          return std::string();
        return absl::StrCat("found ", text, ", expected a number from ", low,
                            " to ", high);
      },
      ""));
  return *this;
}

Argument Argument::Threads() { return WholeNumber(0, 1024); }

template <typename T>
Argument Argument::Range(T low, T high) {
  option_->check(CLI::Range(low, high));
  return *this;
}
template Argument Argument::Range(int, int);
template Argument Argument::Range(double, double);

Argument Argument::Positive() {
  option_->check(CLI::PositiveNumber);
  return *this;
}

Argument Argument::NonNegative() {
  option_->check(CLI::NonNegativeNumber);
  return *this;
}

Command Command::Add(const std::string& name, const std::string& summary,
                     Run run) {
  CLI::App* sub = app_->add_subcommand(name, summary);
  if (run == nullptr) {
    sub->require_subcommand(1);
    return Command(sub);
  }
  sub->callback([sub, run = std::move(run)] {
    // A group such as `games` also runs for its own sub-commands.
    if (!sub->get_subcommands().empty()) return;
    const absl::StatusOr<int> result = run();
    if (result.ok()) {
      exit_status = *result;
      return;
    }
    exit_status = Failed(result.status());
  });
  return Command(sub);
}

template <typename T>
Argument Command::Arg(const std::string& name, T& value,
                      const std::string& doc) {
  return Argument(app_->add_option(name, value, doc));
}
template Argument Command::Arg(const std::string&, std::string&,
                               const std::string&);
template Argument Command::Arg(const std::string&, std::vector<std::string>&,
                               const std::string&);
template Argument Command::Arg(const std::string&, int32_t&,
                               const std::string&);
template Argument Command::Arg(const std::string&, int64_t&,
                               const std::string&);
template Argument Command::Arg(const std::string&, uint32_t&,
                               const std::string&);
template Argument Command::Arg(const std::string&, uint64_t&,
                               const std::string&);
template Argument Command::Arg(const std::string&, float&, const std::string&);
template Argument Command::Arg(const std::string&, double&, const std::string&);
template Argument Command::Arg(const std::string&, std::optional<int>&,
                               const std::string&);
template Argument Command::Arg(const std::string&, std::optional<double>&,
                               const std::string&);

Argument Command::Flag(const std::string& name, bool& value,
                       const std::string& doc) {
  return Argument(app_->add_flag(name, value, doc));
}

void Command::ConfigFlags(std::vector<std::string>& files,
                          std::vector<std::string>& sets) {
  app_->add_option("--config", files,
                   "YAML file of a run; a further one overrides keys of those "
                   "before it")
      ->type_name("FILE")
      ->allow_extra_args(false);
  app_->add_option("--set", sets, "goes over the files; may be given again")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
}

bool Command::Has(const std::string& name) const {
  return app_->count(name) > 0;
}

int RunCommandLine(int argc, char** argv, const std::string& summary,
                   const std::function<void(Command)>& add) {
  CLI::App app{summary, "atod"};
  app.require_subcommand(1);
  add(Command(&app));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return Finished(app.exit(e));
    std::fprintf(stderr, "error: %s (atod --help lists what there is)\n",
                 Explain(app, argc, argv, e).c_str());
    return 2;
  }
  return Finished(exit_status);
}

}  // namespace atod::cli

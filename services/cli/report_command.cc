#include "services/cli/report_command.h"

#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "common/base/file.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/base/warn.h"
#include "common/config/config.h"
#include "common/run/run_folder.h"
#include "report/left_out.h"
#include "report/report.h"
#include "services/cli/command.h"

namespace atod::cli {
namespace {

struct ReportFlags {
  std::vector<std::string> runs;
  bool compare = false;
  std::string out;
  std::string markdown;
};

absl::StatusOr<int> RunReport(const ReportFlags& flags) {
  if (flags.runs.size() > 1 && flags.out.empty()) {
    return BadInput({"report", "--out", 0, "nothing",
                     "a file, for there are several runs"});
  }
  std::set<std::string> seen;
  std::vector<report::RunData> runs;
  for (const std::string& dir : flags.runs) {
    ATOD_ASSIGN_OR_RETURN(report::RunData run, report::ReadRun(dir));
    std::error_code ec;
    const std::string real = std::filesystem::canonical(run.dir, ec).string();
    if (!seen.insert(real).second)
      return BadInput({dir, "RUN", 0, "the same run again", "another run"});
    runs.push_back(std::move(run));
  }
  report::ReportOptions options;
  options.compare = flags.compare;
  ATOD_ASSIGN_OR_RETURN(const config::LoadedConfig defaults,
                        config::LoadRunConfig({}));
  ATOD_ASSIGN_OR_RETURN(
      options.defaults,
      report::FlattenConfig(config::ResolvedYaml(defaults.config), "defaults"));
  const std::string out =
      flags.out.empty() ? RunFolder(runs[0].dir).report() : flags.out;
  const std::string html = report::RenderReport(runs, options);
  ATOD_RETURN_IF_ERROR(WriteFileAtomic(out, html));
  absl::PrintF("%s: %d runs, %.1f KiB\n", out, runs.size(),
               static_cast<double>(html.size()) / 1024);
  for (const std::string& line : report::LeftOutOf(runs)) LogWarning(line);
  if (flags.markdown.empty()) return 0;
  const std::filesystem::path svg =
      std::filesystem::path(flags.markdown).replace_extension(".svg");
  const std::string table = report::RenderMarkdown(runs, svg.filename());
  ATOD_RETURN_IF_ERROR(WriteFileAtomic(flags.markdown, table));
  ATOD_RETURN_IF_ERROR(WriteFileAtomic(svg.string(), report::RenderSvg(runs)));
  absl::PrintF("%s\n%s: learning curves\n", table, svg.string());
  return 0;
}

}  // namespace

void AddReportCommand(Command app) {
  auto flags = std::make_shared<ReportFlags>();
  Command sub = app.Add(
      "report", "one HTML page of a run, or of several: tables, curves, health",
      [=] { return RunReport(*flags); });
  sub.Arg("RUN", flags->runs, "folders of runs").Required();
  sub.Flag("--compare", flags->compare,
           "runs in the same axes, with paired differences; else one part "
           "a run");
  sub.Arg("--out", flags->out,
          "HTML file; of one run: default RUN/report.html");
  sub.Arg("--markdown", flags->markdown,
          "also the tables as a Markdown file, with the curves beside "
          "it as .svg");
}

}  // namespace atod::cli

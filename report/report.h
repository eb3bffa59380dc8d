#pragma once

#include <map>
#include <string>
#include <vector>

#include "report/run_data.h"

namespace atod::report {

struct ReportOptions {
  // Runs over each other in the same axes with paired differences, instead of
  // one part a run.
  bool compare = false;
  // Values that keys have when nobody sets them (FlattenConfig), to show what a
  // single run changed.
  std::map<std::string, std::string> defaults{};
};

// One HTML file that needs nothing beside it. At least one run.
std::string RenderReport(const std::vector<RunData>& runs,
                         const ReportOptions& options);

// The table of the runs, and the differences between groups, in Markdown; of
// one run a whole page, with `svg`, the name of the file beside it that
// RenderSvg makes, and with what deploy/up.sh measured.
std::string RenderMarkdown(const std::vector<RunData>& runs,
                           const std::string& svg = "report.svg");

// The success curves of the runs' groups as an SVG file.
std::string RenderSvg(const std::vector<RunData>& runs);

}  // namespace atod::report

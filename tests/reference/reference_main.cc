// Writes the files that are generated from the code's own tables, or checks
// that the ones in the repository are up to date:
//
//   atod-reference --write | --check      (in the repository root)
//
// or prints the configuration that a program would get from some files:
//
//   atod-reference --config FILE…

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/base/file.h"
#include "common/config/config.h"
#include "common/config/reference.h"
#include "common/metrics/names.h"
#include "nlohmann/json.hpp"

namespace atod {
namespace {

std::string Cell(const char* text) {
  return absl::StrReplaceAll(text, {{"|", "\\|"}});
}

const char* KindName(metrics::Kind kind) {
  switch (kind) {
    case metrics::Kind::kCounter:
      return "counter";
    case metrics::Kind::kGauge:
      return "gauge";
    case metrics::Kind::kHistogram:
      return "histogram";
  }
  return "";
}

std::string MetricsPage() {
  std::string out =
      "# Metrics\n\n"
      "Generated from `common/metrics/names.h`; a test keeps it up to date.\n\n"
      "## Numbers of a step\n\n"
      "One record a step feeds `runs/NAME/metrics.jsonl`, the TensorBoard "
      "events in\n`runs/NAME/tb` and the learner's `/metrics`, there as gauges "
      "with the label `run`.\nWhat a clock measures (`timing/*`, "
      "`throughput/*`, `memory/*`) goes to\n`runs/NAME/timings.jsonl` instead, "
      "with the step's `time` in Unix seconds, so that\n`metrics.jsonl` has "
      "the same bytes when the run is repeated, or killed and resumed.\n\n"
      "| tag | Prometheus | meaning |\n|---|---|---|\n";
  for (const metrics::StepTag& tag : metrics::kStepTags) {
    std::string name(tag.tag);
    std::string gauge = metrics::PrometheusName(name);
    if (name.ends_with("*")) {
      name.replace(name.size() - 1, 1, "CATEGORY");
      gauge.replace(gauge.size() - 1, 1, "CATEGORY");
    }
    absl::StrAppend(&out, "| `", name, "` | `", gauge, "` | ", Cell(tag.help),
                    " |\n");
  }
  absl::StrAppend(&out,
                  "\n## Services\n\n| metric | kind | labels | meaning |\n"
                  "|---|---|---|---|\n");
  for (const metrics::ServiceMetric* metric : metrics::kServiceMetrics) {
    absl::StrAppend(&out, "| `", metric->name, "` | ", KindName(metric->kind),
                    " | ", metric->labels, " | ", Cell(metric->help), " |\n");
  }
  return out;
}

// The chart's own values with the run's configuration below `config`.
absl::StatusOr<std::string> ChartSchema() {
  const absl::StatusOr<std::string> text =
      ReadFile("helm/atod/values.own.schema.json");
  if (!text.ok()) return text.status();
  auto schema = nlohmann::ordered_json::parse(*text);
  schema["properties"]["config"] =
      nlohmann::ordered_json::parse(config::ValuesSchema());
  return schema.dump(2) + "\n";
}

int Main(const std::string& mode) {
  const absl::StatusOr<std::string> chart = ChartSchema();
  if (!chart.ok()) {
    std::fprintf(stderr, "error: %s\n", chart.status().ToString().c_str());
    return 2;
  }
  const std::vector<std::pair<std::string, std::string>> files = {
      {"docs/configuration.md", config::ConfigReference()},
      {"docs/metrics.md", MetricsPage()},
      {"helm/atod/values.schema.json", *chart},
  };
  int stale = 0;
  for (const auto& [path, text] : files) {
    if (mode == "--write") {
      const absl::Status status = WriteFileAtomic(path, text);
      if (status.ok()) continue;
      std::fprintf(stderr, "error: %s\n", status.ToString().c_str());
      return 2;
    }
    if (const auto found = ReadFile(path); !found.ok() || *found != text) {
      std::printf("%s is out of date: run atod-reference --write\n",
                  path.c_str());
      ++stale;
    }
  }
  return stale > 0;
}

int PrintMerged(const std::vector<std::string>& paths) {
  const auto loaded = config::LoadRunConfig(paths);
  if (!loaded.ok()) {
    std::fprintf(stderr, "error: %s\n",
                 std::string(loaded.status().message()).c_str());
    return 2;
  }
  std::fputs(config::ResolvedYaml(loaded->config).c_str(), stdout);
  return 0;
}

}  // namespace
}  // namespace atod

int main(int argc, char** argv) {
  const std::string mode = argc >= 2 ? argv[1] : "";
  if (mode == "--config") return atod::PrintMerged({argv + 2, argv + argc});
  if (mode != "--write" && mode != "--check") {
    std::fprintf(stderr,
                 "error: found other arguments, expected --write, --check or "
                 "--config\n");
    return 2;
  }
  return atod::Main(mode);
}

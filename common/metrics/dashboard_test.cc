// The files of deploy/ that name metrics, against the tables of names.h and
// promtool.

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <regex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/file.h"
#include "common/metrics/names.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace atod::metrics {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::ElementsAre;

json Dashboard(const fs::path& path) {
  return json::parse(*ReadFile(path.string()));
}

std::vector<fs::path> DashboardFiles() {
  std::vector<fs::path> out;
  for (const auto& entry : fs::directory_iterator("deploy/grafana/dashboards"))
    out.push_back(entry.path());
  return out;
}

// Every (panel title, expression).
std::vector<std::pair<std::string, std::string>> Expressions() {
  std::vector<std::pair<std::string, std::string>> out;
  for (const fs::path& path : DashboardFiles()) {
    const json dashboard = Dashboard(path);
    for (const json& panel : dashboard["panels"])
      for (const json& target : panel.value("targets", json::array()))
        out.emplace_back(panel["title"], target["expr"]);
  }
  return out;
}

std::set<std::string> KnownNames() {
  std::set<std::string> out;
  for (const StepTag& tag : kStepTags) out.insert(PrometheusName(tag.tag));
  for (const ServiceMetric* metric : kServiceMetrics) {
    if (metric->kind != Kind::kHistogram) {
      out.insert(metric->name);
      continue;
    }
    for (const char* suffix : {"_bucket", "_sum", "_count"})
      out.insert(absl::StrCat(metric->name, suffix));
  }
  return out;
}

void ExpectKnownNames(const std::string& text, const std::string& where) {
  static const std::set<std::string> known = KnownNames();
  static const std::regex name("\\batod_[a-z0-9_]+");
  for (std::sregex_iterator it(text.begin(), text.end(), name), end; it != end;
       ++it)
    EXPECT_TRUE(known.contains(it->str()))
        << where << " names " << it->str() << ", which names.h has not";
}

bool HavePromtool() {
  return std::system("command -v promtool >/dev/null") == 0;
}

// Runs a command; its output when it fails.
std::string Failure(const std::string& command) {
  const std::string log =
      absl::StrCat(testing::TempDir(), "/promtool.", getpid());
  const int status =
      std::system(absl::StrCat(command, " >", log, " 2>&1").c_str());
  return status == 0 ? "" : *ReadFile(log);
}

// The learner sets numbers of a step as `metrics["tag"] = …` or `Put("tag",
// …)`.
TEST(Names, HaveEveryTagThatTheLearnerSets) {
  std::set<std::string> known;
  for (const StepTag& tag : kStepTags) known.insert(tag.tag);
  static const std::regex set(
      "(?:\\[|Put\\(\\s*)\"([a-z_]+/[a-z_]+)\"(?:\\] \\+?=|,)");
  int tags = 0;
  for (const auto& entry :
       fs::recursive_directory_iterator("services/learner")) {
    const std::string path = entry.path().string();
    if (!path.ends_with(".cc") || path.ends_with("_test.cc")) continue;
    const std::string text = *ReadFile(path);
    for (std::sregex_iterator it(text.begin(), text.end(), set), end; it != end;
         ++it, ++tags)
      EXPECT_TRUE(known.contains(it->str(1))) << path << ": " << it->str(1);
  }
  EXPECT_GT(tags, 10);
}

TEST(Dashboards, NameOnlyMetricsThatExist) {
  EXPECT_GT(Expressions().size(), 40u);
  for (const auto& [title, expr] : Expressions()) ExpectKnownNames(expr, title);
}

TEST(Dashboards, EveryExpressionIsPromQL) {
  if (!HavePromtool()) GTEST_SKIP() << "promtool is not installed";
  json rules = json::array();
  for (const auto& [title, expr] : Expressions())
    rules.push_back(
        {{"record", absl::StrCat("r:", rules.size())}, {"expr", expr}});
  const json file = {{"groups", {{{"name", "dashboard"}, {"rules", rules}}}}};
  const std::string path =
      absl::StrCat(testing::TempDir(), "/dashboard_rules.", getpid(), ".yml");
  ASSERT_TRUE(WriteFileAtomic(path, file.dump()).ok());
  EXPECT_EQ(Failure("promtool check rules " + path), "");
}

TEST(Dashboards, StartWithThePapersCurves) {
  std::vector<std::string> titles;
  const json dashboard = Dashboard("deploy/grafana/dashboards/atod.json");
  for (const json& panel : dashboard["panels"])
    if (panel["gridPos"]["y"] == 0)
      titles.push_back(panel["title"].get<std::string>());
  EXPECT_THAT(
      titles,
      ElementsAre("hybrid/kl_coef", "hybrid/rl_coef",
                  "hybrid/opd_signal_abs_mean, hybrid/rl_signal_abs_mean",
                  "episode/reward", "val/success_rate"));
}

TEST(Dashboards, HaveUniqueIdsTheProvisionedSourceAndNoOverlap) {
  const std::string sources =
      *ReadFile("deploy/grafana/provisioning/datasources/atod.yml");
  std::set<std::string> uids;
  for (const fs::path& path : DashboardFiles()) {
    const json dashboard = Dashboard(path);
    EXPECT_TRUE(uids.insert(dashboard["uid"].get<std::string>()).second);
    std::set<int> ids;
    std::set<std::pair<int, int>> cells;
    for (const json& panel : dashboard["panels"]) {
      EXPECT_TRUE(ids.insert(panel["id"].get<int>()).second) << panel["title"];
      const json& at = panel["gridPos"];
      EXPECT_LE(at["x"].get<int>() + at["w"].get<int>(), 24) << panel["title"];
      for (int x = 0; x < at["w"]; ++x)
        for (int y = 0; y < at["h"]; ++y)
          EXPECT_TRUE(
              cells.insert({at["x"].get<int>() + x, at["y"].get<int>() + y})
                  .second)
              << panel["title"];
      if (panel["type"] == "row") continue;
      const std::string uid = panel["datasource"]["uid"];
      EXPECT_THAT(sources, testing::HasSubstr("uid: " + uid));
      EXPECT_FALSE(panel["targets"].empty()) << panel["title"];
    }
  }
}

TEST(Alerts, NameOnlyMetricsThatExist) {
  ExpectKnownNames(*ReadFile("deploy/alerts.yml"), "deploy/alerts.yml");
  ExpectKnownNames(*ReadFile("deploy/alerts_test.yml"),
                   "deploy/alerts_test.yml");
}

TEST(Alerts, PassTheirUnitTestsAndEachIsTested) {
  const std::string tests = *ReadFile("deploy/alerts_test.yml");
  const std::string rules = *ReadFile("deploy/alerts.yml");
  static const std::regex alert("- alert: (\\w+)");
  for (std::sregex_iterator it(rules.begin(), rules.end(), alert), end;
       it != end; ++it)
    EXPECT_THAT(tests, testing::ContainsRegex(
                           absl::StrCat("alertname: ", it->str(1), "\n")));
  if (!HavePromtool()) GTEST_SKIP() << "promtool is not installed";
  EXPECT_EQ(Failure("promtool check config deploy/prometheus.yml"), "");
  EXPECT_EQ(Failure("promtool test rules deploy/alerts_test.yml"), "");
}

}  // namespace
}  // namespace atod::metrics

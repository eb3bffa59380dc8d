#include "common/metrics/metrics.h"

#include <cstdlib>
#include <filesystem>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/file.h"
#include "common/metrics/step_recorder.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "prometheus/text_serializer.h"

namespace atod::metrics {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

std::string Exposition(const Registry& registry) {
  return prometheus::TextSerializer().Serialize(
      registry.prometheus()->Collect());
}

class TempDir {
 public:
  TempDir() {
    std::string path = testing::TempDir() + "/metrics.XXXXXX";
    path_ = mkdtemp(path.data());
  }
  // tests/peers/tensorboard.sh reads what is kept.
  ~TempDir() {
    if (std::getenv("ATOD_KEEP_TEST_FILES") == nullptr) fs::remove_all(path_);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST(Names, AreValidAndUnique) {
  EXPECT_EQ(PrometheusName("hybrid/kl_coef"), "atod_hybrid_kl_coef");
  EXPECT_EQ(PrometheusName("val/success_rate/a b-c"),
            "atod_val_success_rate_a_x20_b_x2d_c");
  std::set<std::string> categories;
  for (const StepTag& tag : kStepTags)
    categories.insert(PrometheusName(tag.tag));
  for (const char* category :
       {"a-b", "a b", "a_b", "a/b", "a.b", "\xc3\xa4", "a_x20_b", "best",
        "best_", "mean_last", "_", "-"})
    EXPECT_TRUE(
        categories
            .insert(PrometheusName(absl::StrCat("val/success_rate/", category)))
            .second)
        << category;
  std::set<std::string> seen;
  for (const StepTag& tag : kStepTags)
    EXPECT_TRUE(seen.insert(PrometheusName(tag.tag)).second) << tag.tag;
  for (const ServiceMetric* metric : kServiceMetrics)
    EXPECT_TRUE(seen.insert(metric->name).second) << metric->name;
}

// Every metric of the tables, with a value.
void FillAll(Registry& registry) {
  for (const ServiceMetric* metric : kServiceMetrics) {
    switch (metric->kind) {
      case Kind::kCounter:
        registry.Counter(*metric).Increment();
        break;
      case Kind::kGauge:
        registry.Gauge(*metric).Set(1);
        break;
      case Kind::kHistogram:
        registry.Histogram(*metric).Observe(1);
    }
  }
  for (const StepTag& tag : kStepTags) {
    std::string name = tag.tag;
    if (name.ends_with("*")) name.replace(name.size() - 1, 1, "pick");
    registry.StepGauge(name, "r").Set(1);
  }
}

TEST(Registry, PromtoolFindsNothingWrongWithAnyMetric) {
  if (std::system("command -v promtool >/dev/null") != 0)
    GTEST_SKIP() << "promtool is not installed (Debian package prometheus)";
  Registry registry;
  FillAll(registry);
  TempDir dir;
  const std::string file = dir.path() + "/metrics.txt";
  const std::string report = dir.path() + "/report.txt";
  ASSERT_TRUE(WriteFileAtomic(file, Exposition(registry)).ok());
  const int status = std::system(
      absl::StrCat("promtool check metrics <", file, " >", report, " 2>&1")
          .c_str());
  EXPECT_EQ(status, 0) << *ReadFile(report);
}

TEST(Registry, TheSameMetricIsTheSameObject) {
  Registry registry;
  EXPECT_EQ(&registry.Counter(kRolloutTokens),
            &registry.Counter(kRolloutTokens));
  EXPECT_NE(&registry.Counter(kEnvsSteps, {{"env", "a"}}),
            &registry.Counter(kEnvsSteps, {{"env", "b"}}));
}

TEST(MetricsServer, ServesTheRegistryAndRefusesATakenPort) {
  Registry registry;
  registry.Gauge(kRolloutSlots).Set(64);
  const auto server = MetricsServer::StartOnFreePort("127.0.0.1", registry);
  ASSERT_TRUE(server.ok()) << server.status();
  ASSERT_NE((*server)->port(), 0);
  const auto again =
      MetricsServer::Start("127.0.0.1", (*server)->port(), registry);
  EXPECT_TRUE(absl::IsAlreadyExists(again.status()));
  EXPECT_THAT(std::string(again.status().message()),
              HasSubstr(absl::StrCat((*server)->port())));
  TempDir dir;
  // bash speaks just enough HTTP.
  const std::string got = dir.path() + "/got";
  const std::string command = absl::StrCat(
      "bash -c 'exec 3<>/dev/tcp/127.0.0.1/", (*server)->port(),
      R"( && printf "GET /metrics HTTP/1.0\r\n\r\n" >&3 && cat <&3' >)", got);
  ASSERT_EQ(std::system(command.c_str()), 0);
  EXPECT_THAT(*ReadFile(got), HasSubstr("\natod_rollout_slots 64\n"));
}

TEST(MetricsServer, AnInterfaceThatItCannotListenOnIsNoPortInUse) {
  Registry registry;
  EXPECT_TRUE(CheckHost("127.0.0.1").ok());
  // An address of documentation (RFC 5737) is no interface of any machine.
  const auto server = MetricsServer::Start("192.0.2.1", 9, registry);
  EXPECT_EQ(server.status().message(),
            "rpc.bind: found 192.0.2.1, where /metrics cannot be served, "
            "expected an interface of this machine");
  const absl::Status v6 = CheckHost("2001:db8::1");
  EXPECT_THAT(std::string(v6.message()), testing::HasSubstr("civetweb"));
}

TEST(MetricsServer, PortZeroServesNothing) {
  Registry registry;
  const auto server = MetricsServer::Start("127.0.0.1", 0, registry);
  ASSERT_TRUE(server.ok());
  EXPECT_EQ((*server)->port(), 0);
}

TEST(Crc32c, MatchesTheKnownAnswers) {
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aau);  // RFC 3720 B.4
}

class StepRecorderTest : public testing::Test {
 protected:
  std::unique_ptr<StepRecorder> Open(int64_t keep_through) {
    auto recorder =
        StepRecorder::Open(dir_.path(), "r", keep_through, &registry_, clock_);
    EXPECT_TRUE(recorder.ok()) << recorder.status();
    return *std::move(recorder);
  }
  std::string Jsonl(const char* file = "/metrics.jsonl") const {
    return *ReadFile(dir_.path() + file);
  }
  // Bytes of all event files.
  std::string Events() const {
    std::string out;
    for (const auto& entry : fs::directory_iterator(dir_.path() + "/tb"))
      out += *ReadFile(entry.path());
    return out;
  }

  TempDir dir_;
  Registry registry_;
  FakeClock clock_;
};

TEST_F(StepRecorderTest, FeedsJsonlEventsAndGauges) {
  const auto recorder = Open(-1);
  ASSERT_TRUE(
      recorder->Record(1, {{"hybrid/kl_coef", 0.1}, {"new/tag", 3}}).ok());
  clock_.Advance(absl::Seconds(2));
  ASSERT_TRUE(recorder
                  ->Record(2, {{"hybrid/kl_coef", 1.0 / 3},
                               {"memory/peak_bytes", 4},
                               {"throughput/tokens_per_second", 5},
                               {"timing/step_seconds", 6}})
                  .ok());
  EXPECT_EQ(Jsonl(),
            "{\"step\":1,\"hybrid/kl_coef\":0.1,\"new/tag\":3.0}\n"
            "{\"step\":2,\"hybrid/kl_coef\":0.3333333333333333}\n");
  EXPECT_EQ(Jsonl("/timings.jsonl"),
            "{\"step\":1,\"time\":1000000.0}\n"
            "{\"step\":2,\"time\":1000002.0,\"memory/peak_bytes\":4.0,"
            "\"throughput/tokens_per_second\":5.0,"
            "\"timing/step_seconds\":6.0}\n");
  EXPECT_THAT(Events(), HasSubstr("timing/step_seconds"));
  EXPECT_THAT(Exposition(registry_),
              HasSubstr("atod_timing_step_seconds{run=\"r\"} 6"));
  EXPECT_THAT(Events(), HasSubstr("brain.Event:2"));
  EXPECT_THAT(Events(), HasSubstr("hybrid/kl_coef"));
  EXPECT_THAT(Exposition(registry_),
              HasSubstr("atod_hybrid_kl_coef{run=\"r\"} 0.333333333333333"));
  EXPECT_THAT(Exposition(registry_), HasSubstr("atod_new_tag{run=\"r\"} 3"));
}

TEST_F(StepRecorderTest, AResumeDropsLaterStepsAndALineCutShort) {
  {
    const auto recorder = Open(-1);
    for (int step = 0; step <= 5; ++step)
      ASSERT_TRUE(recorder->Record(step, {{"a/b", step * 1.5}}).ok());
  }
  const std::string before = Events(), unbroken = Jsonl();
  ASSERT_TRUE(WriteFileAtomic(dir_.path() + "/metrics.jsonl",
                              Jsonl() + "{\"step\":6,\"a/")
                  .ok());
  clock_.Advance(absl::Seconds(100));
  {
    const auto recorder = Open(3);
    ASSERT_EQ(recorder->kept().size(), 4u);
    EXPECT_EQ(recorder->kept()[3].step, 3u);
    EXPECT_EQ(recorder->kept()[3].time, 1000000);
    EXPECT_EQ(recorder->kept()[3].scalars.at("a/b"), 4.5);
    EXPECT_THAT(Exposition(registry_), HasSubstr("atod_a_b{run=\"r\"} 4.5"));
    for (int step = 4; step <= 5; ++step)
      ASSERT_TRUE(recorder->Record(step, {{"a/b", step * 1.5}}).ok());
  }
  EXPECT_EQ(Jsonl(), unbroken);
  std::vector<int> steps;
  std::istringstream lines(Jsonl("/timings.jsonl"));
  for (std::string line; std::getline(lines, line);)
    steps.push_back(nlohmann::json::parse(line)["step"]);
  EXPECT_THAT(steps, testing::ElementsAre(0, 1, 2, 3, 4, 5));
  // One event a step: as long as before, other times.
  EXPECT_EQ(Events().size(), before.size());
}

TEST_F(StepRecorderTest, AValueThatIsNotFiniteIsNullInJson) {
  const auto recorder = Open(-1);
  ASSERT_TRUE(recorder->Record(1, {{"actor/grad_norm", NAN}}).ok());
  EXPECT_THAT(Jsonl(), HasSubstr("\"actor/grad_norm\":null"));
  EXPECT_THAT(Exposition(registry_), HasSubstr("Nan"));
}

TEST_F(StepRecorderTest, AFreshStartKeepsNothing) {
  ASSERT_TRUE(Open(-1)->Record(1, {{"a/b", 1}}).ok());
  Open(-1);
  EXPECT_EQ(Jsonl(), "");
  EXPECT_THAT(Events(), Not(HasSubstr("a/b")));
}

}  // namespace
}  // namespace atod::metrics

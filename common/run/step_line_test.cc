#include "common/run/step_line.h"

#include <cmath>

#include "gtest/gtest.h"

namespace atod {
namespace {

TEST(StepLine, ReadsWhatItWrites) {
  const std::string line =
      WriteStepLine({3, 1000.5, {{"a/b", 1.0 / 3}, {"c/d", NAN}}});
  EXPECT_EQ(line,
            R"({"step":3,"time":1000.5,"a/b":0.3333333333333333,"c/d":null})");
  const auto step = ReadStepLine(line);
  ASSERT_TRUE(step.has_value());
  EXPECT_EQ(step->step, 3u);
  EXPECT_EQ(step->time, 1000.5);
  EXPECT_EQ(step->scalars.at("a/b"), 1.0 / 3);
  EXPECT_TRUE(std::isnan(step->scalars.at("c/d")));
}

TEST(StepLine, WhatIsNoStepIsNone) {
  for (const char* line :
       {"", "{\"step\":3,\"a", "[3]", "{\"a\":1}", "{\"step\":-1}",
        "{\"step\":1.5}", "{\"step\":\"1\"}", "{\"step\":4294967296}",
        "{\"step\":1}}"})
    EXPECT_FALSE(ReadStepLine(line).has_value()) << line;
  EXPECT_TRUE(ReadStepLine("{\"step\":0}").has_value());
}

}  // namespace
}  // namespace atod

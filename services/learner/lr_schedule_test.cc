#include "services/learner/lr_schedule.h"

#include "gtest/gtest.h"

namespace atod::learner {
namespace {

v1::OptimizerConfig Config(const std::string& schedule) {
  v1::OptimizerConfig config;
  config.set_lr(1e-3);
  config.set_lr_end(1e-4);
  config.set_schedule(schedule);
  config.set_decay_step(50);
  return config;
}

TEST(LearningRate, FollowsItsScheduleAfterTheWarmUp) {
  EXPECT_EQ(LearningRate(Config("constant"), 100, 77), 1e-3);
  EXPECT_EQ(LearningRate(Config("step"), 100, 50), 1e-3);
  EXPECT_EQ(LearningRate(Config("step"), 100, 51), 1e-4);
  EXPECT_NEAR(LearningRate(Config("linear"), 100, 50), 5.5e-4, 1e-15);
  EXPECT_NEAR(LearningRate(Config("cosine"), 100, 50), 5.5e-4, 1e-15);
  EXPECT_NEAR(LearningRate(Config("cosine"), 100, 25), 8.681980515e-4, 1e-12);
  for (const char* schedule : {"linear", "cosine"}) {
    EXPECT_NEAR(LearningRate(Config(schedule), 100, 100), 1e-4, 1e-15);
    for (uint32_t step = 2; step <= 100; ++step)
      EXPECT_LT(LearningRate(Config(schedule), 100, step),
                LearningRate(Config(schedule), 100, step - 1));
  }
}

TEST(LearningRate, WarmsUpOverStepsOrAShareOfThem) {
  v1::OptimizerConfig config = Config("constant");
  config.set_warmup_ratio(.1);
  EXPECT_NEAR(LearningRate(config, 95, 5), .5e-3, 1e-15);  // 9.5 is 10 steps
  EXPECT_EQ(LearningRate(config, 95, 10), 1e-3);
  config.set_warmup_steps(20);
  EXPECT_NEAR(LearningRate(config, 95, 5), .25e-3, 1e-15);
  config.set_schedule("linear");
  EXPECT_EQ(LearningRate(config, 95, 20), 1e-3);
}

}  // namespace
}  // namespace atod::learner

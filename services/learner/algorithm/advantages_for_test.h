#pragma once

#include <vector>

#include "common/device/cpu_device.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/learner/algorithm/advantages.h"
#include "services/learner/recipe_for_test.h"

namespace atod::learner {

inline absl::StatusOr<Advantages> TryCompute(const StepBatch& batch,
                                             const Settings& settings,
                                             int step = 40) {
  const Recipe recipe = RecipeFor(settings);
  return ComputeAdvantages(batch, recipe, recipe.At(step), *MakeCpuDevice());
}

inline Advantages Compute(const StepBatch& batch, const Settings& settings,
                          int step = 40) {
  auto result = TryCompute(batch, settings, step);
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? *result : Advantages();
}

inline auto Near(const std::vector<double>& expected,
                 double tolerance = 1e-12) {
  return testing::Pointwise(testing::DoubleNear(tolerance), expected);
}

}  // namespace atod::learner

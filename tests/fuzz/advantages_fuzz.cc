// The batch file of `atod advantages`.
#include "services/learner/algorithm/advantages_json.h"
#include "services/learner/recipe_for_test.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto kRecipe = atod::learner::RecipeFor({});
  const std::string text(atod::Text(data, size));
  atod::learner::AdvantagesOfJson(text, "BATCH.json", kRecipe, 10)
      .status()
      .IgnoreError();
  return 0;
}

// The batch file of `atod advantages`.
#include "services/learner/algorithm/advantages_json.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(atod::Text(data, size));
  atod::learner::AdvantagesOfJson(text, "BATCH.json", {}, 10)
      .status()
      .IgnoreError();
  return 0;
}

// RunConfig YAML. What loads is printed, and loads back to the same.
#include "common/config/config.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto loaded = atod::config::ParseRunConfig(
      std::string(atod::Text(data, size)), "c.yaml");
  if (!loaded.ok()) return 0;
  atod::config::PrintConfig(*loaded);
  const std::string yaml = atod::config::ResolvedYaml(loaded->config);
  const auto again = atod::config::ParseRunConfig(yaml, "again.yaml");
  atod::Require(again.ok(), "the resolved configuration does not load");
  atod::Require(atod::config::ResolvedYaml(again->config) == yaml,
                "the resolved configuration loads as another");
  return 0;
}

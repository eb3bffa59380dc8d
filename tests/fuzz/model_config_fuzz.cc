// config.json of a model folder.
#include "common/model/model_config.h"
#include "common/model/model_folder.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto config = atod::model::ParseModelConfig(
      std::string(atod::Text(data, size)), "config.json");
  if (!config.ok()) return 0;
  const auto again = atod::model::ParseModelConfig(
      atod::model::ModelConfigJson(*config, "float32"), "again.json");
  atod::Require(again.ok(), "a written config.json does not read back");
  atod::Require(atod::model::ArchHash(*again) == atod::model::ArchHash(*config),
                "a written config.json reads back as another model");
  atod::model::ParameterSpecs(*config);
  atod::WriteInput("config.json", atod::Text(data, size));
  atod::model::StopTokens(atod::FuzzDir()).IgnoreError();
  return 0;
}

#pragma once

#include <string>

namespace atod::config {

// docs/configuration.md: every key with type, default, bounds and meaning.
std::string ConfigReference();

// JSON Schema (draft 7) of the YAML file: the `config` value of the chart.
std::string ValuesSchema();

}  // namespace atod::config

#pragma once

// What the field options of proto/atod/v1/config.proto say, as plain structs:
// shared by the loader, the printer, the reference page and the chart's schema.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"

namespace atod::config {

// One scalar key.
struct KeyInfo {
  const google::protobuf::FieldDescriptor* field = nullptr;
  // Dotted path; elements of a list are written `teachers[]`.
  std::string path;
  std::string doc;
  // Default as YAML text; nothing when the key stays unset.
  std::optional<std::string> def;
  // Inclusive bounds, those of the type included; nothing for none.
  std::optional<double> min;
  std::optional<double> max;
  std::string unit;
  std::vector<std::string> choices;
  bool live = false;
};

// The options of a scalar field.
KeyInfo DescribeKey(const google::protobuf::FieldDescriptor& field,
                    std::string path);

// Every scalar key below `message`, in the order of the file.
std::vector<KeyInfo> AllKeys(const google::protobuf::Descriptor& message);

// "an integer from 1 to 4096", "one of: cpu, cuda", "text", …
std::string Expected(const KeyInfo& key);

}  // namespace atod::config

#include "common/config/reference.h"

#include <cmath>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "atod/v1/config.pb.h"
#include "common/config/schema.h"
#include "nlohmann/json.hpp"

namespace atod::config {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using Json = nlohmann::ordered_json;

const char* TypeName(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return "text";
    case FieldDescriptor::CPPTYPE_BOOL:
      return "true or false";
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return "number";
    default:
      return "integer";
  }
}

std::string Cell(const std::string& text) {
  return absl::StrReplaceAll(text, {{"|", "\\|"}});
}

std::string Range(const KeyInfo& key) {
  if (!key.choices.empty()) return absl::StrJoin(key.choices, ", ");
  const auto number = [](double v) { return absl::StrCat(v); };
  if (key.min.has_value() && key.max.has_value()) {
    return absl::StrCat(number(*key.min), " … ", number(*key.max));
  }
  if (key.min.has_value()) return absl::StrCat("≥ ", number(*key.min));
  if (key.max.has_value()) return absl::StrCat("≤ ", number(*key.max));
  return "";
}

// A bound as the kind of number the key is, so that 150 is not shown as 150.0.
Json JsonNumber(const KeyInfo& key, double value) {
  if (key.field->cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE &&
      value != std::floor(value)) {
    return value;
  }
  return static_cast<int64_t>(value);
}

Json KeySchema(const KeyInfo& key) {
  Json out;
  switch (key.field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      out["type"] = "string";
      break;
    case FieldDescriptor::CPPTYPE_BOOL:
      out["type"] = "boolean";
      break;
    case FieldDescriptor::CPPTYPE_DOUBLE:
      out["type"] = "number";
      break;
    default:
      out["type"] = "integer";
  }
  out["description"] =
      key.unit.empty() ? key.doc : absl::StrCat(key.doc, " [", key.unit, "]");
  if (!key.choices.empty()) out["enum"] = key.choices;
  if (key.min.has_value()) out["minimum"] = JsonNumber(key, *key.min);
  if (key.max.has_value()) out["maximum"] = JsonNumber(key, *key.max);
  return out;
}

Json SectionSchema(const Descriptor& message) {
  Json properties = Json::object();
  for (int i = 0; i < message.field_count(); ++i) {
    const FieldDescriptor& field = *message.field(i);
    if (field.cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
      properties[field.name()] = KeySchema(DescribeKey(field, field.name()));
    } else if (field.is_repeated()) {
      properties[field.name()] = {
          {"type", "array"}, {"items", SectionSchema(*field.message_type())}};
    } else {
      properties[field.name()] = SectionSchema(*field.message_type());
    }
  }
  return {{"type", "object"},
          {"additionalProperties", false},
          {"properties", properties}};
}

}  // namespace

std::string ConfigReference() {
  std::string out =
      "# Configuration\n\n"
      "Generated from `proto/atod/v1/config.proto` by `atod-config-reference`; "
      "a test keeps it\nup to date. Written as YAML with these names:\n\n"
      "```yaml\n"
      "steps: 150\n"
      "algorithm:\n"
      "  recipe: atod\n"
      "teachers:\n"
      "  - path: models/teacher\n"
      "```\n\n"
      "Every program takes `--config FILE` (again for more: a later file goes "
      "over the earlier ones), `--set optimizer.lr=1e-6` "
      "(`--set teachers.0.path=DIR`\nfor a list) and `--print-config`, which "
      "prints the whole configuration with the source\nof every value: "
      "`default`, `FILE:LINE` or `--set`. Unknown keys, wrong types and "
      "values\n"
      "out of range are refused with file, line, what was found and what was "
      "expected.\n";
  std::string section = "?";
  for (const KeyInfo& key : AllKeys(*v1::RunConfig::descriptor())) {
    const size_t dot = key.path.rfind('.');
    const std::string in =
        dot == std::string::npos ? "" : key.path.substr(0, dot);
    if (in != section) {
      section = in;
      absl::StrAppend(
          &out, "\n## ",
          section.empty() ? "Top level" : absl::StrCat("`", section, "`"),
          "\n\n| key | type | default | range | unit | meaning |\n"
          "|---|---|---|---|---|---|\n");
    }
    const std::string def = !key.def.has_value() ? "not set"
                            : key.def->empty()
                                ? "empty"
                                : absl::StrCat("`", *key.def, "`");
    absl::StrAppend(&out, "| `", key.path, "` | ", TypeName(*key.field), " | ",
                    def, " | ", Cell(Range(key)), " | ", key.unit, " | ",
                    Cell(key.doc), key.live ? " (live)" : "", " |\n");
  }
  return out;
}

std::string ValuesSchema() {
  return SectionSchema(*v1::RunConfig::descriptor()).dump(2) + "\n";
}

}  // namespace atod::config

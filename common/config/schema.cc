#include "common/config/schema.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "atod/v1/options.pb.h"

namespace atod::config {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

std::optional<double> Bound(const std::string& text) {
  double value = 0;
  if (!absl::SimpleAtod(text, &value)) return std::nullopt;
  return value;
}

void Collect(const Descriptor& message, const std::string& prefix,
             std::vector<KeyInfo>& out) {
  for (int i = 0; i < message.field_count(); ++i) {
    const FieldDescriptor& field = *message.field(i);
    const std::string path = absl::StrCat(prefix, field.name());
    if (field.cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
      out.push_back(DescribeKey(field, path));
    } else {
      Collect(*field.message_type(),
              absl::StrCat(path, field.is_repeated() ? "[]." : "."), out);
    }
  }
}

std::string RangeEnd(double value) {
  return value == static_cast<double>(static_cast<int64_t>(value))
             ? absl::StrCat(static_cast<int64_t>(value))
             : absl::StrCat(value);
}

}  // namespace

KeyInfo DescribeKey(const FieldDescriptor& field, std::string path) {
  const v1::ConfigField& options = field.options().GetExtension(v1::cfg);
  KeyInfo key;
  key.field = &field;
  key.path = std::move(path);
  key.doc = options.doc();
  // "No default" and "the empty text" look alike in proto3; a string that has
  // no `def` defaults to the empty text, which for every string key means
  // "not given". One of several choices without a `def` has no default.
  if (!options.def().empty() ||
      (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING &&
       options.choices().empty())) {
    key.def = options.def();
  }
  key.min = Bound(options.min());
  key.max = Bound(options.max());
  key.unit = options.unit();
  key.choices.assign(options.choices().begin(), options.choices().end());
  key.live = options.live();
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_UINT32 ||
      field.cpp_type() == FieldDescriptor::CPPTYPE_UINT64) {
    if (!key.min.has_value()) key.min = 0;
  }
  return key;
}

std::vector<KeyInfo> AllKeys(const Descriptor& message) {
  std::vector<KeyInfo> out;
  Collect(message, "", out);
  return out;
}

std::string Expected(const KeyInfo& key) {
  switch (key.field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      return "true or false";
    case FieldDescriptor::CPPTYPE_STRING:
      return key.choices.empty()
                 ? "text"
                 : absl::StrCat("one of: ", absl::StrJoin(key.choices, ", "));
    default:
      break;
  }
  std::string out = key.field->cpp_type() == FieldDescriptor::CPPTYPE_DOUBLE
                        ? "a number"
                        : "an integer";
  if (key.min.has_value() && key.max.has_value()) {
    absl::StrAppend(&out, " from ", RangeEnd(*key.min), " to ",
                    RangeEnd(*key.max));
  } else if (key.min.has_value()) {
    absl::StrAppend(&out, " of at least ", RangeEnd(*key.min));
  } else if (key.max.has_value()) {
    absl::StrAppend(&out, " of at most ", RangeEnd(*key.max));
  }
  return out;
}

}  // namespace atod::config

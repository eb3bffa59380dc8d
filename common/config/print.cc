#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/config/config.h"
#include "common/config/schema.h"
#include "common/config/values.h"

namespace atod::config {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

std::string Text(const std::string& text) {
  // Plain when no YAML reader can take it for anything but text.
  bool plain = !text.empty() && (std::isalpha(text[0]) || text[0] == '/');
  for (const char c : text) {
    plain = plain &&
            (std::isalnum(c) || c == '_' || c == '-' || c == '/' || c == '.');
  }
  for (const char* word :
       {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}) {
    plain = plain && strcasecmp(text.c_str(), word) != 0;
  }
  if (plain) return text;
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      absl::StrAppend(&out, "\\", std::string(1, c));
    } else if (static_cast<unsigned char>(c) < 0x20) {
      absl::StrAppendFormat(&out, "\\x%02x", c);
    } else {
      out.push_back(c);
    }
  }
  return out + "\"";
}

// The shortest text that reads back to the same double, with a point before
// an exponent: without it YAML 1.1 readers take 1e-06 for text.
std::string Number(double value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  std::string out(buffer, end);
  const size_t e = out.find('e');
  if (e != std::string::npos && out.find('.') == std::string::npos) {
    out.insert(e, ".0");
  }
  return out;
}

std::string Scalar(const Message& message, const FieldDescriptor& field) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return Text(reflection.GetString(message, &field));
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection.GetBool(message, &field) ? "true" : "false";
    case FieldDescriptor::CPPTYPE_UINT32:
      return absl::StrCat(reflection.GetUInt32(message, &field));
    case FieldDescriptor::CPPTYPE_UINT64:
      return absl::StrCat(reflection.GetUInt64(message, &field));
    default:
      return Number(reflection.GetDouble(message, &field));
  }
}

// Lines of `message`, each behind `indent`; the first behind `first`.
// `sources` may be null: then there are no comments.
void Print(const Message& message, const std::string& indent, std::string first,
           const std::string& prefix,
           const std::map<std::string, std::string>* sources,
           std::string& out) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  const google::protobuf::Descriptor& descriptor = *message.GetDescriptor();
  const auto start = [&] { return std::exchange(first, indent); };
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor& field = *descriptor.field(i);
    const std::string path = absl::StrCat(prefix, field.name());
    if (field.is_repeated()) {
      const int size = reflection.FieldSize(message, &field);
      if (size == 0) continue;
      absl::StrAppend(&out, start(), field.name(), ":\n");
      for (int n = 0; n < size; ++n) {
        Print(reflection.GetRepeatedMessage(message, &field, n),
              indent + "    ", indent + "  - ", absl::StrCat(path, ".", n, "."),
              sources, out);
      }
    } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      if (!reflection.HasField(message, &field)) continue;
      absl::StrAppend(&out, start(), field.name(), ":\n");
      Print(reflection.GetMessage(message, &field), indent + "  ",
            indent + "  ", absl::StrCat(path, "."), sources, out);
    } else if (reflection.HasField(message, &field)) {
      std::string line =
          absl::StrCat(start(), field.name(), ": ", Scalar(message, field));
      if (sources != nullptr) {
        const auto it = sources->find(path);
        absl::StrAppendFormat(&line, "%*s  # %s",
                              std::max<int>(0, 40 - line.size()), "",
                              it == sources->end() ? "?" : it->second);
      }
      absl::StrAppend(&out, line, "\n");
    } else if (sources != nullptr) {
      absl::StrAppend(&out, indent, "# ", field.name(), " is not set\n");
    }
  }
}

void AddValues(const Message& message, const std::string& prefix, Values& out) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  const google::protobuf::Descriptor& descriptor = *message.GetDescriptor();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor& field = *descriptor.field(i);
    const std::string path = absl::StrCat(prefix, field.name());
    if (field.is_repeated()) {
      for (int n = 0; n < reflection.FieldSize(message, &field); ++n) {
        AddValues(reflection.GetRepeatedMessage(message, &field, n),
                  absl::StrCat(path, ".", n, "."), out);
      }
    } else if (!reflection.HasField(message, &field)) {
      continue;
    } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      AddValues(reflection.GetMessage(message, &field), path + ".", out);
    } else {
      out.emplace_back(path, Scalar(message, field));
    }
  }
}

// Keys or sections.
constexpr const char* kPlaySettings[] = {"name",
                                         "deterministic",
                                         "layout",
                                         "model.dtype",
                                         "model.max_context",
                                         "env.name",
                                         "env.prompt_set",
                                         "env.max_turns",
                                         "env.history_length",
                                         "env.success_reward",
                                         "sampling"};

bool IsPlaySetting(const std::string& key) {
  return std::any_of(std::begin(kPlaySettings), std::end(kPlaySettings),
                     [&](const std::string& name) {
                       return key == name || key.starts_with(name + ".");
                     });
}

}  // namespace

Values ValuesOf(const v1::RunConfig& config) {
  Values out;
  AddValues(config, "", out);
  return out;
}

Values PlaySettings(const v1::RunConfig& config) {
  Values out = ValuesOf(config);
  std::erase_if(out, [](const auto& v) { return !IsPlaySetting(v.first); });
  return out;
}

std::string Difference::ToString() const {
  return absl::StrCat(key, ": ", before, " before, ", after, " now");
}

std::vector<Difference> Differences(const v1::RunConfig& before,
                                    const v1::RunConfig& after) {
  const Values b = ValuesOf(before), a = ValuesOf(after);
  const std::map<std::string, std::string> was(b.begin(), b.end());
  const std::map<std::string, std::string> is(a.begin(), a.end());
  std::vector<Difference> out;
  for (const auto& [key, value] : a) {
    const auto old = was.find(key);
    if (old == was.end() || old->second != value)
      out.push_back({key, old == was.end() ? "unset" : old->second, value});
  }
  for (const auto& [key, value] : b)
    if (!is.contains(key)) out.push_back({key, value, "unset"});
  return out;
}

std::string PrintConfig(const LoadedConfig& loaded) {
  std::string out;
  Print(loaded.config, "", "", "", &loaded.sources, out);
  return out;
}

std::string ResolvedYaml(const v1::RunConfig& config) {
  std::string out;
  Print(config, "", "", "", nullptr, out);
  return out;
}

}  // namespace atod::config

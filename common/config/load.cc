#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <sstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/edit_distance.h"
#include "common/base/file.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/config/schema.h"
#include "utf8proc.h"
#include "yaml-cpp/eventhandler.h"
#include "yaml-cpp/yaml.h"

namespace atod::config {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// Longest list that `--set teachers.N.…` may make.
constexpr size_t kMaxElements = 64;

// Where a value stands.
struct Place {
  std::string file;  // "--set" for an override
  int64_t line = 0;
  std::string Source() const {
    return line > 0 ? absl::StrCat(file, ":", line) : file;
  }
};

absl::Status Refuse(const Place& place, const std::string& field,
                    const std::string& found, const std::string& expected) {
  return BadInput({place.file, field, place.line, found, expected});
}

// `text` fit for one line of a message.
std::string Quote(const std::string& text) {
  std::string out = absl::Utf8SafeCEscape(text);
  if (out.size() > 80) out = absl::StrCat(out.substr(0, 77), "...");
  return absl::StrCat("\"", out, "\"");
}

// The name that was probably meant: one of `section` that is close, else a key
// of that very name elsewhere, else all names of `section`.
std::string Suggest(const std::string& name, const Descriptor& section) {
  std::vector<std::string> names;
  const FieldDescriptor* best = nullptr;
  size_t best_distance = std::numeric_limits<size_t>::max();
  for (int i = 0; i < section.field_count(); ++i) {
    names.push_back(section.field(i)->name());
    const size_t distance = EditDistance(name, names.back());
    if (distance < best_distance) {
      best_distance = distance;
      best = section.field(i);
    }
  }
  if (best != nullptr && best_distance <= 1 + name.size() / 4) {
    return best->name();
  }
  for (const KeyInfo& key : AllKeys(*v1::RunConfig::descriptor())) {
    if (key.field->name() == name) return key.path;
  }
  return absl::StrCat(
      "one of: ", absl::StrJoin(names, ", "),
      best == nullptr ? "" : absl::StrCat(" (nearest: ", best->name(), ")"));
}

// Sets a scalar from its text. `quoted`: it was written in quotes, so it is
// text even when it looks like a number.
absl::Status SetScalar(Message& message, const FieldDescriptor& field,
                       const std::string& text, bool quoted, const Place& place,
                       const std::string& path) {
  const KeyInfo key = DescribeKey(field, path);
  const auto refuse = [&] {
    const bool text_given =
        (quoted || text.starts_with('"') || text.starts_with('\'')) &&
        field.cpp_type() != FieldDescriptor::CPPTYPE_STRING;
    return Refuse(
        place, path,
        text.empty() && !quoted ? "nothing"
        : text_given            ? absl::StrCat("the text ", Quote(text))
                                : Quote(text),
        absl::StrCat(Expected(key), text_given ? ", without quotes" : ""));
  };
  const auto in_bounds = [&key](double value) {
    return (!key.min.has_value() || value >= *key.min) &&
           (!key.max.has_value() || value <= *key.max);
  };
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  const bool blank = text.find_first_of(" \t\n\r") != std::string::npos;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      if (!key.choices.empty() &&
          std::find(key.choices.begin(), key.choices.end(), text) ==
              key.choices.end()) {
        return refuse();
      }
      reflection.SetString(&message, &field, text);
      return absl::OkStatus();
    case FieldDescriptor::CPPTYPE_BOOL:
      if (quoted || (text != "true" && text != "false")) return refuse();
      reflection.SetBool(&message, &field, text == "true");
      return absl::OkStatus();
    case FieldDescriptor::CPPTYPE_UINT32: {
      uint32_t value = 0;
      if (quoted || blank || !absl::SimpleAtoi(text, &value) ||
          !in_bounds(value)) {
        return refuse();
      }
      reflection.SetUInt32(&message, &field, value);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_UINT64: {
      uint64_t value = 0;
      if (quoted || blank || !absl::SimpleAtoi(text, &value) ||
          !in_bounds(static_cast<double>(value))) {
        return refuse();
      }
      reflection.SetUInt64(&message, &field, value);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      double value = 0;
      if (quoted || blank ||
          text.find_first_not_of("0123456789+-.eE") != std::string::npos ||
          !absl::SimpleAtod(text, &value) || !std::isfinite(value) ||
          !in_bounds(value)) {
        return refuse();
      }
      reflection.SetDouble(&message, &field, value);
      return absl::OkStatus();
    }
    default:
      return absl::InternalError(
          absl::StrCat(path, ": its type is not supported in config.proto"));
  }
}

std::string KindOf(const YAML::Node& node) {
  switch (node.Type()) {
    case YAML::NodeType::Map:
      return "a mapping";
    case YAML::NodeType::Sequence:
      return "a list";
    case YAML::NodeType::Scalar:
      return Quote(node.Scalar());
    default:
      return "nothing";
  }
}

class Walker {
 public:
  Walker(std::string file, LoadedConfig& out)
      : file_(std::move(file)), out_(out) {}

  // Fills `message` from the mapping `node`; `prefix` is "" or ends in a dot.
  absl::Status Fill(const YAML::Node& node, const std::string& prefix,
                    Message& message) {
    std::map<std::string, int64_t> seen;
    for (const auto& entry : node) {
      const Place place = At(entry.first);
      if (!entry.first.IsScalar()) {
        return Refuse(place, prefix, KindOf(entry.first), "the name of a key");
      }
      const std::string name = entry.first.Scalar();
      const std::string path = absl::StrCat(prefix, name);
      const FieldDescriptor* field =
          message.GetDescriptor()->FindFieldByName(name);
      if (field == nullptr) {
        return Refuse(place, absl::Utf8SafeCEscape(path), "an unknown key",
                      Suggest(name, *message.GetDescriptor()));
      }
      if (const auto [it, fresh] = seen.emplace(name, place.line); !fresh) {
        return Refuse(place, path,
                      absl::StrCat("the key again, first on line ", it->second),
                      "each key once");
      }
      ATOD_RETURN_IF_ERROR(
          FillField(*field, entry.second, place, path, message));
    }
    return absl::OkStatus();
  }

  absl::Status FillTop(const YAML::Node& node) {
    if (node.IsNull()) return absl::OkStatus();
    if (!node.IsMap()) {
      return Refuse(At(node), "", KindOf(node), "keys and values (key: value)");
    }
    return Fill(node, "", out_.config);
  }

 private:
  Place At(const YAML::Node& node) const {
    return {file_, node.Mark().line + 1};
  }

  absl::Status FillField(const FieldDescriptor& field, const YAML::Node& node,
                         const Place& key_place, const std::string& path,
                         Message& message) {
    const google::protobuf::Reflection& reflection = *message.GetReflection();
    if (field.is_repeated()) {
      if (node.IsNull()) return absl::OkStatus();
      if (!node.IsSequence()) {
        return Refuse(key_place, path, KindOf(node), "a list (- key: value)");
      }
      reflection.ClearField(&message, &field);
      std::erase_if(out_.sources, [&path](const auto& source) {
        return source.first.starts_with(path + ".");
      });
      size_t index = 0;
      for (const YAML::Node& element : node) {
        const std::string at = absl::StrCat(path, ".", index++);
        if (!element.IsMap()) {
          return Refuse(element.IsNull() ? key_place : At(element), at,
                        KindOf(element), "keys and values (key: value)");
        }
        ATOD_RETURN_IF_ERROR(Fill(element, absl::StrCat(at, "."),
                                  *reflection.AddMessage(&message, &field)));
      }
      return absl::OkStatus();
    }
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      if (node.IsNull()) return absl::OkStatus();
      if (!node.IsMap()) {
        return Refuse(key_place, path, KindOf(node),
                      "a section (keys and values, indented)");
      }
      return Fill(node, absl::StrCat(path, "."),
                  *reflection.MutableMessage(&message, &field));
    }
    if (!node.IsScalar()) {
      return Refuse(key_place, path, KindOf(node),
                    Expected(DescribeKey(field, path)));
    }
    const Place place = At(node);
    // yaml-cpp tags a scalar written in quotes "!", a plain one "?".
    const bool quoted = node.Tag() == "!";
    ATOD_RETURN_IF_ERROR(
        SetScalar(message, field, node.Scalar(), quoted, place, path));
    out_.sources[path] = place.Source();
    return absl::OkStatus();
  }

  const std::string file_;
  LoadedConfig& out_;
};

absl::Status ApplySet(const std::string& set, LoadedConfig& out) {
  const Place place{"--set", 0};
  const size_t equals = set.find('=');
  if (equals == std::string::npos || equals == 0) {
    return Refuse(place, "", Quote(set), "KEY=VALUE");
  }
  const std::string path = set.substr(0, equals);
  const std::string value = set.substr(equals + 1);
  const std::vector<std::string> names = absl::StrSplit(path, '.');
  Message* message = &out.config;
  for (size_t i = 0; i < names.size(); ++i) {
    const FieldDescriptor* field =
        message->GetDescriptor()->FindFieldByName(names[i]);
    const std::string here =
        absl::StrJoin(names.begin(), names.begin() + i + 1, ".");
    if (field == nullptr) {
      return Refuse(place, absl::Utf8SafeCEscape(here), "an unknown key",
                    Suggest(names[i], *message->GetDescriptor()));
    }
    const bool last = i + 1 == names.size();
    const google::protobuf::Reflection& reflection = *message->GetReflection();
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
      if (!last) {
        return Refuse(
            place, path, absl::StrCat("keys below ", here),
            absl::StrCat(here, "=", Expected(DescribeKey(*field, here))));
      }
      ATOD_RETURN_IF_ERROR(
          SetScalar(*message, *field, value, false, place, path));
      out.sources[path] = place.Source();
      return absl::OkStatus();
    }
    if (!field->is_repeated()) {
      message = reflection.MutableMessage(message, field);
      continue;
    }
    const int size = reflection.FieldSize(*message, field);
    uint32_t index = 0;
    if (last || !absl::SimpleAtoi(names[i + 1], &index) ||
        index > static_cast<uint32_t>(size) || index >= kMaxElements) {
      return Refuse(place, path,
                    last ? "no number of an element" : Quote(names[i + 1]),
                    absl::StrCat(here, ".N.KEY with N from 0 to ", size));
    }
    message = index == static_cast<uint32_t>(size)
                  ? reflection.AddMessage(message, field)
                  : reflection.MutableRepeatedMessage(message, field, index);
    ++i;
  }
  return Refuse(place, path, "a section",
                absl::StrCat("a key of it (", path, ".KEY=VALUE)"));
}

// Sets what is still unset and has a default; makes every section exist.
absl::Status FillDefaults(Message& message, const std::string& prefix,
                          LoadedConfig& out) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  const Descriptor& descriptor = *message.GetDescriptor();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor& field = *descriptor.field(i);
    const std::string path = absl::StrCat(prefix, field.name());
    if (field.is_repeated()) {
      for (int n = 0; n < reflection.FieldSize(message, &field); ++n) {
        ATOD_RETURN_IF_ERROR(FillDefaults(
            *reflection.MutableRepeatedMessage(&message, &field, n),
            absl::StrCat(path, ".", n, "."), out));
      }
    } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      ATOD_RETURN_IF_ERROR(
          FillDefaults(*reflection.MutableMessage(&message, &field),
                       absl::StrCat(path, "."), out));
    } else if (!reflection.HasField(message, &field)) {
      const KeyInfo key = DescribeKey(field, path);
      if (!key.def.has_value()) continue;
      ATOD_RETURN_IF_ERROR(SetScalar(message, field, *key.def, false,
                                     {"config.proto", 0}, path));
      out.sources[path] = "default";
    }
  }
  return absl::OkStatus();
}

// What yaml-cpp would take in silence or report badly.
absl::Status CheckText(const std::string& yaml, const std::string& file) {
  int64_t line = 1;
  for (const auto piece : absl::StrSplit(yaml, '\n')) {
    const std::string text(piece);
    const size_t content = text.find_first_not_of(" \t\r");
    const size_t tab = text.find('\t');
    if (content != std::string::npos && tab < content) {
      return Refuse({file, line}, "", "a tab in the indentation", "spaces");
    }
    size_t at = 0;
    while (at < text.size()) {
      utf8proc_int32_t code = 0;
      const utf8proc_ssize_t n = utf8proc_iterate(
          reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
          text.size() - at, &code);
      if (n <= 0 || (code < 0x20 && code != '\t' && code != '\r')) {
        return Refuse(
            {file, line}, "",
            absl::StrCat("byte 0x", absl::Hex(static_cast<uint8_t>(text[at]),
                                              absl::kZeroPad2)),
            "text in UTF-8");
      }
      at += n;
    }
    ++line;
  }
  return absl::OkStatus();
}

// Remembers where a document starts.
class DocumentStart : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark& mark) override {
    line = mark.line + 1;
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t,
                const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}

  int64_t line = 0;
};

// Refuses a second document. YAML::Load would ignore it, and YAML::LoadAll
// never ends on text that no document takes, such as a leading comma.
absl::Status CheckOneDocument(const std::string& yaml,
                              const std::string& file) {
  std::istringstream in(yaml);
  YAML::Parser parser(in);
  DocumentStart start;
  if (parser.HandleNextDocument(start) && parser.HandleNextDocument(start)) {
    return Refuse({file, start.line}, "",
                  "a second YAML document, or text outside of the first",
                  "one document");
  }
  return absl::OkStatus();
}

// Adds what the text of `file` says to `out`.
absl::Status Merge(const std::string& yaml, const std::string& file,
                   LoadedConfig& out) {
  ATOD_RETURN_IF_ERROR(CheckText(yaml, file));
  try {
    ATOD_RETURN_IF_ERROR(CheckOneDocument(yaml, file));
    return Walker(file, out).FillTop(YAML::Load(yaml));
  } catch (const YAML::Exception& e) {
    return Refuse({file, std::max(e.mark.line + 1, 0)}, "",
                  absl::StrCat("broken YAML: ", e.msg), "valid YAML");
  }
}

absl::StatusOr<LoadedConfig> Finish(LoadedConfig out,
                                    const std::vector<std::string>& sets) {
  for (const std::string& set : sets) {
    ATOD_RETURN_IF_ERROR(ApplySet(set, out));
  }
  ATOD_RETURN_IF_ERROR(FillDefaults(out.config, "", out));
  if (!out.config.has_deterministic()) {
    out.config.set_deterministic(ExactCanRun(out.config));
    out.sources["deterministic"] = "default";
  }
  ATOD_RETURN_IF_ERROR(CheckTogether(out));
  return out;
}

}  // namespace

absl::StatusOr<LoadedConfig> ParseRunConfig(
    const std::string& yaml, const std::string& file,
    const std::vector<std::string>& sets) {
  LoadedConfig out;
  ATOD_RETURN_IF_ERROR(Merge(yaml, file, out));
  return Finish(std::move(out), sets);
}

absl::StatusOr<LoadedConfig> LoadRunConfig(
    const std::vector<std::string>& paths,
    const std::vector<std::string>& sets) {
  LoadedConfig out;
  for (const std::string& path : paths) {
    ATOD_ASSIGN_OR_RETURN(const std::string yaml, ReadFile(path));
    ATOD_RETURN_IF_ERROR(Merge(yaml, path, out));
  }
  return Finish(std::move(out), sets);
}

}  // namespace atod::config

#include "common/checkpoint/safetensors.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <limits>
#include <numeric>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/file.h"
#include "common/base/file_parts.h"
#include "common/base/json.h"
#include "common/base/status_macros.h"

namespace atod {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeader = 100'000'000;  // the format's own limit
constexpr char kMetadata[] = "__metadata__";

// Product of the shape, -1 when it does not fit.
int64_t NumElements(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t n : shape) {
    if (__builtin_mul_overflow(count, n, &count)) return -1;
  }
  return count;
}

struct Entry {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  uint64_t begin;
  uint64_t end;
};

absl::StatusOr<uint64_t> Whole(const json& value, const std::string& path,
                               const std::string& field) {
  if (!value.is_number_unsigned() ||
      value.get<uint64_t>() >
          static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return BadInput({.file = path,
                     .field = field,
                     .found = JsonPreview(value),
                     .expected = "a whole number"});
  }
  return value.get<uint64_t>();
}

absl::StatusOr<Entry> ReadEntry(const std::string& name, const json& value,
                                const std::string& path, uint64_t data_size) {
  const auto bad = [&](const char* key, std::string found,
                       std::string expected) {
    return BadInput({.file = path,
                     .field = absl::StrCat(name, key),
                     .found = std::move(found),
                     .expected = std::move(expected)});
  };
  if (!value.is_object()) {
    return bad("", JsonPreview(value), "dtype, shape and data_offsets");
  }
  Entry entry{.name = name, .dtype = {}, .shape = {}, .begin = 0, .end = 0};
  const json dtype = value.value("dtype", json());
  if (!dtype.is_string() || DtypeSize(dtype.get<std::string>()) == 0) {
    return bad(".dtype", JsonPreview(dtype), "a known dtype");
  }
  entry.dtype = dtype.get<std::string>();
  const json shape = value.value("shape", json());
  if (!shape.is_array()) return bad(".shape", JsonPreview(shape), "an array");
  for (const json& n : shape) {
    ATOD_ASSIGN_OR_RETURN(const uint64_t size, Whole(n, path, name + ".shape"));
    entry.shape.push_back(static_cast<int64_t>(size));
  }
  const json offsets = value.value("data_offsets", json());
  if (!offsets.is_array() || offsets.size() != 2) {
    return bad(".data_offsets", JsonPreview(offsets), "[begin, end]");
  }
  ATOD_ASSIGN_OR_RETURN(entry.begin,
                        Whole(offsets[0], path, name + ".data_offsets"));
  ATOD_ASSIGN_OR_RETURN(entry.end,
                        Whole(offsets[1], path, name + ".data_offsets"));
  if (entry.begin > entry.end || entry.end > data_size) {
    return bad(".data_offsets", JsonPreview(offsets),
               absl::StrCat("a range inside of ", data_size, " bytes"));
  }
  const int64_t count = NumElements(entry.shape);
  const auto size = static_cast<int64_t>(DtypeSize(entry.dtype));
  if (count < 0 || count > std::numeric_limits<int64_t>::max() / size ||
      static_cast<uint64_t>(count * size) != entry.end - entry.begin) {
    return bad(".data_offsets", absl::StrCat(entry.end - entry.begin, " bytes"),
               absl::StrCat(entry.dtype, " of shape [",
                            absl::StrJoin(entry.shape, ","), "]"));
  }
  return entry;
}

// Parses the header; a second tensor of one name would hide the first.
absl::StatusOr<json> ParseHeader(std::string_view text,
                                 const std::string& path) {
  ATOD_RETURN_IF_ERROR(CheckJsonDepth(text, path));
  std::set<std::string> names;
  std::string duplicate;
  json header = json::parse(
      text.begin(), text.end(),
      [&](int depth, json::parse_event_t event, json& key) {
        if (event == json::parse_event_t::key && depth == 1 &&
            !names.insert(key.get<std::string>()).second) {
          duplicate = key.get<std::string>();
        }
        return true;
      },
      /*allow_exceptions=*/false);
  if (!header.is_object()) {
    return BadInput({.file = path,
                     .field = "header",
                     .found = header.is_discarded() ? "no JSON" : "no object",
                     .expected = "a JSON object"});
  }
  if (!duplicate.empty()) {
    return BadInput({.file = path,
                     .field = duplicate,
                     .found = "two tensors of this name",
                     .expected = "one"});
  }
  return header;
}

// The file of each tensor that an index names.
absl::StatusOr<std::map<std::string, std::string>> ReadIndex(
    const std::string& index_path) {
  std::map<std::string, std::string> file_of;
  ATOD_ASSIGN_OR_RETURN(const std::string text, ReadFile(index_path));
  ATOD_ASSIGN_OR_RETURN(const json index, ParseJson(text, index_path));
  const json map =
      index.is_object() ? index.value("weight_map", json()) : json();
  if (!map.is_object()) {
    return BadInput({.file = index_path,
                     .field = "weight_map",
                     .found = JsonPreview(map),
                     .expected = "an object of tensor: file"});
  }
  for (const auto& [tensor, file] : map.items()) {
    if (!file.is_string() ||
        file != std::filesystem::path(file.get<std::string>())
                    .filename()
                    .string()) {
      return BadInput({.file = index_path,
                       .field = absl::StrCat("weight_map.", tensor),
                       .found = JsonPreview(file),
                       .expected = "the name of a file of this folder"});
    }
    file_of[tensor] = file.get<std::string>();
  }
  return file_of;
}

// Bytes of the header of a file.
absl::StatusOr<uint64_t> ReadHeaderSize(std::string_view bytes,
                                        const std::string& path) {
  const auto bad = [&](std::string found, std::string expected) {
    return BadInput({.file = path,
                     .field = "header size",
                     .found = std::move(found),
                     .expected = std::move(expected)});
  };
  if (bytes.size() < 8) return bad(absl::StrCat(bytes.size(), " bytes"), "8");
  uint64_t size = 0;
  for (int i = 7; i >= 0; --i)
    size = size << 8 | static_cast<unsigned char>(bytes[i]);
  const uint64_t most = std::min<uint64_t>(kMaxHeader, bytes.size() - 8);
  if (size > most)
    return bad(absl::StrCat(size), absl::StrCat("at most ", most));
  return size;
}

}  // namespace

size_t DtypeSize(std::string_view dtype) {
  static constexpr std::pair<std::string_view, size_t> kSizes[] = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1},
      {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
      {"U32", 4},  {"F32", 4}, {"F64", 8}, {"I64", 8},     {"U64", 8}};
  for (const auto& [name, size] : kSizes) {
    if (name == dtype) return size;
  }
  return 0;
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(
    const std::string& path) {
  std::unique_ptr<SafetensorsFile> out(new SafetensorsFile);
  out->path_ = path;
  ATOD_ASSIGN_OR_RETURN(out->file_, MappedFile::Open(path));
  const std::string_view bytes = out->file_->bytes();
  const auto bad = [&](const char* field, std::string found,
                       std::string expected) {
    return BadInput({.file = path,
                     .field = field,
                     .found = std::move(found),
                     .expected = std::move(expected)});
  };
  ATOD_ASSIGN_OR_RETURN(const uint64_t header_size,
                        ReadHeaderSize(bytes, path));
  ATOD_ASSIGN_OR_RETURN(const json header,
                        ParseHeader(bytes.substr(8, header_size), path));
  const std::string_view data = bytes.substr(8 + header_size);
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == kMetadata) {
      if (!value.is_object()) {
        return bad(kMetadata, JsonPreview(value), "an object of strings");
      }
      for (const auto& [key, text] : value.items()) {
        if (!text.is_string()) {
          return bad(kMetadata, JsonPreview(value), "an object of strings");
        }
        out->metadata_[key] = text.get<std::string>();
      }
      continue;
    }
    ATOD_ASSIGN_OR_RETURN(Entry entry,
                          ReadEntry(name, value, path, data.size()));
    entries.push_back(std::move(entry));
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  uint64_t at = 0;
  for (Entry& entry : entries) {
    if (entry.begin != at) {
      return bad(entry.name.c_str(),
                 absl::StrCat("data that begins at ", entry.begin),
                 absl::StrCat(at, ", the end of the tensor before it"));
    }
    at = entry.end;
    absl::Span<const std::byte> span = absl::MakeConstSpan(
        reinterpret_cast<const std::byte*>(data.data()) + entry.begin,
        entry.end - entry.begin);
    if ((8 + header_size + entry.begin) % DtypeSize(entry.dtype) != 0) {
      out->aligned_.emplace_back(span.begin(), span.end());
      span = out->aligned_.back();
    }
    out->tensors_.push_back({.name = std::move(entry.name),
                             .dtype = std::move(entry.dtype),
                             .shape = std::move(entry.shape),
                             .data = span});
  }
  if (at != data.size()) {
    return bad("data", absl::StrCat(data.size(), " bytes"),
               absl::StrCat(at, ", the sum of the tensors"));
  }
  return out;
}

void SafetensorsFile::Release(const TensorView& tensor) const {
  file_->Release(
      {reinterpret_cast<const char*>(tensor.data.data()), tensor.data.size()});
}

const std::string& SafetensorsDir::PathOf(const std::string& name) const {
  const auto it = file_of_.find(name);
  return it == file_of_.end() ? path_ : it->second->path();
}

void SafetensorsDir::Release(const TensorView& tensor) const {
  const auto it = file_of_.find(tensor.name);
  if (it != file_of_.end()) it->second->Release(tensor);
}

const TensorView* SafetensorsDir::Find(std::string_view name) const {
  const auto it = std::lower_bound(
      tensors_.begin(), tensors_.end(), name,
      [](const TensorView& t, std::string_view n) { return t.name < n; });
  return it != tensors_.end() && it->name == name ? &*it : nullptr;
}

absl::StatusOr<std::unique_ptr<SafetensorsDir>> OpenSafetensorsDir(
    const std::string& dir) {
  const std::filesystem::path folder = dir;
  const std::string index_path =
      (folder / "model.safetensors.index.json").string();
  std::unique_ptr<SafetensorsDir> out(new SafetensorsDir);
  std::map<std::string, std::string> file_of;  // by tensor
  std::set<std::string> names = {"model.safetensors"};
  const bool sharded = std::filesystem::exists(index_path);
  if (sharded) {
    names.clear();
    ATOD_ASSIGN_OR_RETURN(file_of, ReadIndex(index_path));
    for (const auto& [tensor, file] : file_of) names.insert(file);
  }
  out->path_ = sharded ? index_path : (folder / "model.safetensors").string();
  if (!names.contains("model.safetensors") &&
      std::filesystem::exists(folder / "model.safetensors")) {
    return BadInput({.file = (folder / "model.safetensors").string(),
                     .field = "",
                     .found = "a model beside model.safetensors.index.json, "
                              "which names other files",
                     .expected = "one of the two (transformers reads "
                                 "model.safetensors)"});
  }
  for (const std::string& name : names) {
    ATOD_ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsFile> file,
                          SafetensorsFile::Open((folder / name).string()));
    for (const TensorView& tensor : file->tensors()) {
      if (sharded) {
        const auto it = file_of.find(tensor.name);
        if (it == file_of.end() || it->second != name) {
          return BadInput(
              {.file = (folder / name).string(),
               .field = tensor.name,
               .found = "a tensor that the index does not place here",
               .expected = "what weight_map says"});
        }
        file_of.erase(it);
      }
      out->tensors_.push_back(tensor);
      out->file_of_[tensor.name] = file.get();
    }
    out->files_.push_back(std::move(file));
  }
  if (!file_of.empty()) {
    return BadInput(
        {.file = index_path,
         .field = absl::StrCat("weight_map.", file_of.begin()->first),
         .found = absl::StrCat("no such tensor in ", file_of.begin()->second),
         .expected = "one"});
  }
  std::sort(
      out->tensors_.begin(), out->tensors_.end(),
      [](const TensorView& a, const TensorView& b) { return a.name < b.name; });
  return out;
}

absl::Status WriteSafetensors(
    const std::string& path, absl::Span<const TensorView> tensors,
    const std::map<std::string, std::string>& metadata) {
  return WriteSafetensors(path, tensors, metadata,
                          [&](size_t i) { return tensors[i].data; });
}

absl::Status WriteSafetensors(
    const std::string& path, absl::Span<const TensorView> tensors,
    const std::map<std::string, std::string>& metadata,
    const TensorBytes& bytes) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const size_t size_a = DtypeSize(tensors[a].dtype);
    const size_t size_b = DtypeSize(tensors[b].dtype);
    return size_a != size_b ? size_a > size_b
                            : tensors[a].name < tensors[b].name;
  });
  const auto refuse = [&](const TensorView& tensor, uint64_t size) {
    return BadInput(
        {.file = path,
         .field = tensor.name,
         .found = absl::StrCat(size, " bytes of ", tensor.dtype, " [",
                               absl::StrJoin(tensor.shape, ","), "]"),
         .expected = "another name than the rest, a known dtype, and bytes "
                     "that equal dtype and shape"});
  };
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header[kMetadata] = metadata;
  std::vector<uint64_t> sizes;  // in the order of the file
  uint64_t at = 0;
  for (const size_t i : order) {
    const TensorView& tensor = tensors[i];
    const int64_t count = NumElements(tensor.shape);
    sizes.push_back(DtypeSize(tensor.dtype) *
                    static_cast<uint64_t>(std::max<int64_t>(count, 0)));
    if (DtypeSize(tensor.dtype) == 0 || count < 0 || tensor.name == kMetadata ||
        header.contains(tensor.name))
      return refuse(tensor, tensor.data.size());
    header[tensor.name] = {{"dtype", tensor.dtype},
                           {"shape", tensor.shape},
                           {"data_offsets", {at, at + sizes.back()}}};
    at += sizes.back();
  }
  std::string head = header.dump(
      -1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  head.resize((head.size() + 7) / 8 * 8, ' ');
  std::string size_bytes;
  for (int i = 0; i < 8; ++i) {
    size_bytes += static_cast<char>(head.size() >> (8 * i) & 0xFF);
  }
  const std::string begin = size_bytes + head;
  return WriteFileAtomic(
      path, 1 + order.size(),
      [&](size_t part) -> absl::StatusOr<std::string_view> {
        if (part == 0) return std::string_view(begin);
        const size_t i = order[part - 1];
        ATOD_ASSIGN_OR_RETURN(const absl::Span<const std::byte> data, bytes(i));
        if (data.size() != sizes[part - 1])
          return refuse(tensors[i], data.size());
        return std::string_view(reinterpret_cast<const char*>(data.data()),
                                data.size());
      });
}

}  // namespace atod

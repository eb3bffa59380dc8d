#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/checkpoint/mapped_file.h"

namespace atod {

// One tensor of a safetensors file, row-major; the bytes are not owned.
struct TensorView {
  std::string name;
  std::string dtype;  // as the format spells it: "F32", "BF16", "I64", ...
  std::vector<int64_t> shape;
  absl::Span<const std::byte> data;
};

// Bytes of one element; 0 for a dtype that is not known here (BOOL, the whole
// numbers, F8_E4M3, F8_E5M2, F16, BF16, F32, F64 are).
size_t DtypeSize(std::string_view dtype);

// A safetensors file, mapped and checked as a whole when it is opened: header
// size, JSON, names without duplicates, known dtypes, sizes that equal the
// product of the shape, data without gap or overlap up to the end of the file.
// The format does not ask for alignment: views are aligned to their element all
// the same, for a tensor that is not lies here as a copy. Immutable,
// thread-safe.
class SafetensorsFile {
 public:
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(
      const std::string& path);

  // In the order of the data. Views live as long as this object.
  const std::vector<TensorView>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const {
    return metadata_;
  }
  const std::string& path() const { return path_; }
  // See MappedFile::Release.
  void Release(const TensorView& tensor) const;

 private:
  SafetensorsFile() = default;

  std::string path_;
  std::unique_ptr<MappedFile> file_;
  std::vector<TensorView> tensors_;
  std::vector<std::vector<std::byte>> aligned_;  // copies of tensors
  std::map<std::string, std::string> metadata_;
};

// The weights of a Hugging Face folder: model.safetensors, or the shards that
// model.safetensors.index.json names.
class SafetensorsDir {
 public:
  // All tensors, sorted by name.
  const std::vector<TensorView>& tensors() const { return tensors_; }
  // Null when there is no such tensor.
  const TensorView* Find(std::string_view name) const;
  // The file that holds a tensor; that which says what there is, when there is
  // no such tensor.
  const std::string& PathOf(const std::string& name) const;
  // Gives back the memory of a tensor that was read: a model that is copied
  // from its files is not in memory twice.
  void Release(const TensorView& tensor) const;

 private:
  friend absl::StatusOr<std::unique_ptr<SafetensorsDir>> OpenSafetensorsDir(
      const std::string& dir);

  std::string path_;  // model.safetensors, or the index
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, const SafetensorsFile*> file_of_;  // by tensor
  std::vector<TensorView> tensors_;
};

// With an index, its weight_map and the shards must name the same tensors. An
// index beside a model.safetensors that it does not name is refused: which of
// the two is the model?
absl::StatusOr<std::unique_ptr<SafetensorsDir>> OpenSafetensorsDir(
    const std::string& dir);

// Writes atomically. Tensors are laid out by falling element size, then by
// name, so that equal contents give equal files.
absl::Status WriteSafetensors(
    const std::string& path, absl::Span<const TensorView> tensors,
    const std::map<std::string, std::string>& metadata = {});

// The same for tensors without data: `bytes` gives those of tensors[i] when
// they are written, valid until its next call. What lies on a GPU, or must be
// converted, is so in host memory one tensor at a time. An error of `bytes` is
// returned and leaves the file at `path` as it was.
using TensorBytes =
    std::function<absl::StatusOr<absl::Span<const std::byte>>(size_t i)>;
absl::Status WriteSafetensors(
    const std::string& path, absl::Span<const TensorView> tensors,
    const std::map<std::string, std::string>& metadata,
    const TensorBytes& bytes);

}  // namespace atod

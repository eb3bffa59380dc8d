#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace atod {

// A file mapped for reading. The file must not shrink while it is mapped;
// files that are replaced by rename keep their old bytes.
class MappedFile {
 public:
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(
      const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::string_view bytes() const {
    return {static_cast<const char*>(data_), size_};
  }

  // Gives the memory of a part of bytes() back to the system: it is read from
  // the file again when it is needed. Parts of other memory are left alone.
  void Release(std::string_view part) const;

 private:
  MappedFile(void* data, size_t size) : data_(data), size_(size) {}

  void* data_;  // null when the file is empty
  size_t size_;
};

}  // namespace atod

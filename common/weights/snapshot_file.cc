#include "common/weights/snapshot_file.h"

#include "common/base/status_macros.h"
#include "common/checkpoint/safetensors.h"

namespace atod::weights {

absl::Status WriteSnapshotFile(const std::string& path,
                               const WeightSnapshot& snapshot) {
  std::vector<TensorView> views;
  for (const TensorEntry& t : snapshot.tensors) {
    views.push_back({t.name, t.dtype, t.shape,
                     absl::MakeConstSpan(reinterpret_cast<const std::byte*>(
                                             snapshot.data.data()) +
                                             t.offset,
                                         t.bytes)});
  }
  return WriteSafetensors(path, views);
}

absl::StatusOr<WeightSnapshot> ReadSnapshotFile(const std::string& path) {
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<SafetensorsFile> file,
                        SafetensorsFile::Open(path));
  WeightSnapshot snapshot;
  for (const TensorView& view : file->tensors()) {
    const std::string_view bytes(
        reinterpret_cast<const char*>(view.data.data()), view.data.size());
    snapshot.tensors.push_back({view.name, view.dtype, view.shape, bytes.size(),
                                snapshot.data.size(), TensorChecksum(bytes)});
    snapshot.data.append(bytes);
  }
  snapshot.root_hash = ComputeRootHash(snapshot.tensors);
  return snapshot;
}

}  // namespace atod::weights

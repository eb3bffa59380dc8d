#include "common/weights/snapshot.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/base/file.h"
#include "xxhash.h"

namespace atod::weights {

std::string ComputeRootHash(const std::vector<TensorEntry>& tensors) {
  std::vector<std::string> lines;
  lines.reserve(tensors.size());
  for (const TensorEntry& t : tensors)
    lines.push_back(absl::StrFormat("%s %s [%s] %016x\n", t.name, t.dtype,
                                    absl::StrJoin(t.shape, ","), t.xxh3));
  std::sort(lines.begin(), lines.end());
  return HashHex(absl::StrJoin(lines, ""));
}

uint64_t TensorChecksum(std::string_view bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

absl::Status VerifySnapshot(const WeightSnapshot& snapshot) {
  uint64_t end = 0;
  for (const TensorEntry& t : snapshot.tensors) {
    if (t.offset != end || t.bytes > snapshot.data.size() - end)
      return absl::DataLossError(
          absl::StrCat("weight stream: tensor ", t.name, ": found offset ",
                       t.offset, " and ", t.bytes, " bytes, expected offset ",
                       end, " inside ", snapshot.data.size(), " bytes"));
    end += t.bytes;
    const std::string_view bytes(snapshot.data.data() + t.offset, t.bytes);
    if (TensorChecksum(bytes) != t.xxh3)
      return absl::DataLossError(absl::StrCat(
          "weight stream: tensor ", t.name, ": found checksum ",
          absl::Hex(TensorChecksum(bytes)), ", expected ", absl::Hex(t.xxh3)));
  }
  if (end != snapshot.data.size())
    return absl::DataLossError(
        absl::StrCat("weight stream: found ", snapshot.data.size(),
                     " bytes, expected the tensors' ", end));
  const std::string root = ComputeRootHash(snapshot.tensors);
  if (root != snapshot.root_hash)
    return absl::DataLossError(absl::StrCat("weight stream: found root hash ",
                                            root, ", expected ",
                                            snapshot.root_hash));
  return absl::OkStatus();
}

}  // namespace atod::weights

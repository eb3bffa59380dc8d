// A safetensors file; what opens is written and opens again.
#include "common/checkpoint/safetensors.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string path =
      atod::WriteInput("model.safetensors", atod::Text(data, size));
  const auto file = atod::SafetensorsFile::Open(path);
  if (!file.ok()) return 0;
  int sum = 0;
  for (const atod::TensorView& tensor : (*file)->tensors())
    for (const std::byte b : tensor.data) sum += static_cast<int>(b);
  const std::string copy = atod::FuzzDir() + "/copy.safetensors";
  atod::Require(
      atod::WriteSafetensors(copy, (*file)->tensors(), (*file)->metadata())
          .ok(),
      "what was read cannot be written");
  const auto again = atod::SafetensorsFile::Open(copy);
  atod::Require(
      again.ok() && (*again)->tensors().size() == (*file)->tensors().size(),
      "what was written cannot be read");
  return sum == -1;
}

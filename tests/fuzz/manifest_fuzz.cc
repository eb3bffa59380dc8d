// The MANIFEST.json of a checkpoint.
#include "common/checkpoint/manifest.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  atod::WriteInput(atod::kManifestName, atod::Text(data, size));
  const auto manifest = atod::ReadManifest(atod::FuzzDir());
  if (manifest.ok()) atod::ManifestFaults(atod::FuzzDir(), *manifest);
  return 0;
}

// Frames of the spool. An input that begins with 'P' is the payload of a frame
// that is otherwise sound: no mutation would find its checksum.
#include <zlib.h>

#include <cstring>

#include "services/learner/trajectory_store.h"
#include "tests/fuzz/fuzz.h"

namespace {

std::string Frame(std::string_view payload) {
  const auto crc = [](const void* bytes, size_t size) {
    return static_cast<uint32_t>(
        crc32_z(0, static_cast<const Bytef*>(bytes), size));
  };
  uint32_t header[4] = {0x50534441, static_cast<uint32_t>(payload.size()),
                        crc(payload.data(), payload.size()), 0};
  header[3] = crc(header, 12);
  std::string out(sizeof(header), '\0');
  std::memcpy(out.data(), header, sizeof(header));
  out.append(payload);
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string bytes(atod::Text(data, size));
  if (bytes.starts_with('P')) bytes = Frame(bytes.substr(1));
  int frames = 0;
  const auto end = atod::learner::ReadFrames(
      bytes, "spool", [&](atod::v1::Trajectory) { ++frames; });
  atod::Require(!end.ok() || *end <= bytes.size(), "frames beyond the file");
  if (!end.ok()) return 0;
  // What is kept of a torn file reads back as the same.
  int again = 0;
  const auto kept = atod::learner::ReadFrames(
      bytes.substr(0, *end), "spool", [&](atod::v1::Trajectory) { ++again; });
  atod::Require(kept.ok() && *kept == *end && again == frames,
                "a torn file reads differently once it is cut");
  return 0;
}

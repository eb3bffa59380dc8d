#include "common/metrics/tensorboard.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"

namespace atod::metrics {
namespace {

constexpr std::array<uint32_t, 256> kCrcTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) {
      crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0u);
    }
    table[i] = crc;
  }
  return table;
}();

// TFRecord stores checksums rotated and shifted, so that the checksum of data
// that contains checksums is not degenerate.
uint32_t Masked(std::string_view bytes) {
  return std::rotr(Crc32c(bytes), 15) + 0xa282ead8u;
}

// Little-endian bytes of a number.
template <typename T>
void AppendFixed(T value, std::string& out) {
  for (size_t i = 0; i < sizeof(T); ++i) {
    out.push_back(static_cast<char>(value >> (8 * i)));
  }
}

// Protobuf wire format. Types: 0 varint, 1 64-bit, 2 bytes, 5 32-bit.
void AppendVarint(uint64_t value, std::string& out) {
  for (; value >= 0x80; value >>= 7) out.push_back(value | 0x80);
  out.push_back(value);
}
void AppendTag(int field, int type, std::string& out) {
  AppendVarint(field << 3 | type, out);
}
void AppendBytes(int field, std::string_view bytes, std::string& out) {
  AppendTag(field, 2, out);
  AppendVarint(bytes.size(), out);
  out.append(bytes);
}

// tensorflow.Event: wall_time = 1, step = 2, file_version = 3, summary = 5.
std::string Event(double wall_time, int64_t step) {
  std::string out;
  AppendTag(1, 1, out);
  AppendFixed(std::bit_cast<uint64_t>(wall_time), out);
  AppendTag(2, 0, out);
  AppendVarint(step, out);
  return out;
}

}  // namespace

uint32_t Crc32c(std::string_view bytes) {
  uint32_t crc = 0xffffffffu;
  for (const char c : bytes) {
    crc = crc >> 8 ^ kCrcTable[(crc ^ static_cast<uint8_t>(c)) & 0xff];
  }
  return ~crc;
}

absl::StatusOr<std::unique_ptr<EventWriter>> EventWriter::Create(
    const std::string& folder, double wall_time) {
  const std::string path =
      absl::StrFormat("%s/events.out.tfevents.%010.0f.atod", folder, wall_time);
  const int fd = open(path.c_str(),
                      O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot create"));
  }
  std::unique_ptr<EventWriter> writer(new EventWriter(path, fd));
  std::string event = Event(wall_time, 0);
  AppendBytes(3, "brain.Event:2", event);
  ATOD_RETURN_IF_ERROR(writer->Append(event));
  return writer;
}

EventWriter::~EventWriter() { close(fd_); }

absl::Status EventWriter::Write(int64_t step, double wall_time,
                                const std::map<std::string, double>& scalars) {
  std::string summary;
  for (const auto& [tag, value] : scalars) {
    std::string entry;  // Summary.Value: tag = 1, simple_value = 2
    AppendBytes(1, tag, entry);
    AppendTag(2, 5, entry);
    AppendFixed(std::bit_cast<uint32_t>(static_cast<float>(value)), entry);
    AppendBytes(1, entry, summary);
  }
  std::string event = Event(wall_time, step);
  AppendBytes(5, summary, event);
  return Append(event);
}

absl::Status EventWriter::Append(const std::string& event) {
  std::string record;
  AppendFixed<uint64_t>(event.size(), record);
  AppendFixed(Masked(record), record);
  record.append(event);
  AppendFixed(Masked(event), record);
  std::string_view left = record;
  while (!left.empty()) {
    const ssize_t n = write(fd_, left.data(), left.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat(path_, ": cannot write"));
    }
    left.remove_prefix(n);
  }
  return absl::OkStatus();
}

}  // namespace atod::metrics

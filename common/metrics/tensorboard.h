#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace atod::metrics {

// CRC-32C (Castagnoli), as TFRecord files use it.
uint32_t Crc32c(std::string_view bytes);

// Writes a TensorBoard event file: TFRecord frames of tensorflow.Event, scalars
// as Summary.Value{tag, simple_value}. Every write reaches the file at once.
// Not thread-safe.
class EventWriter {
 public:
  // Creates FOLDER/events.out.tfevents.SECONDS.atod; refuses one that exists.
  static absl::StatusOr<std::unique_ptr<EventWriter>> Create(
      const std::string& folder, double wall_time);
  ~EventWriter();
  EventWriter(const EventWriter&) = delete;
  EventWriter& operator=(const EventWriter&) = delete;

  // One event with all values of a step; `wall_time` in Unix seconds.
  absl::Status Write(int64_t step, double wall_time,
                     const std::map<std::string, double>& scalars);

 private:
  EventWriter(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  absl::Status Append(const std::string& event);

  const std::string path_;
  const int fd_;
};

}  // namespace atod::metrics

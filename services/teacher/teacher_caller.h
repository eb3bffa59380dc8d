#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace atod::teacher {

// One finished turn for a teacher: the tokens of its sequence and the sampled
// run in them.
struct TeacherRequest {
  std::string model;  // a name of Lease.teachers
  std::vector<int32_t> tokens;
  uint32_t begin = 0;   // first scored token, at least 1
  uint32_t length = 0;  // scored tokens, at least 1
  float temperature = 1;
  // Requests of one session continue one another: a teacher may keep what it
  // computed of the last one. Empty: none.
  std::string session{};
};

struct TeacherReply {
  std::string model;
  std::string weights_hash;
  float temperature = 1;
  std::vector<float> logprobs;  // `length` of the request
  std::vector<float> entropy;   // nats; empty or as long as logprobs
};

// How an agent loop reaches teachers. Score returns at once; `done` runs
// exactly once, on any thread, possibly before the call returns. The caller
// itself tries again while a teacher is away; an error means that it gave up:
// INVALID_ARGUMENT, FAILED_PRECONDITION and NOT_FOUND are final, the others may
// be asked again. Thread-safe.
class TeacherCaller {
 public:
  virtual ~TeacherCaller() = default;
  virtual void Score(
      TeacherRequest request,
      std::function<void(absl::StatusOr<TeacherReply>)> done) = 0;
};

}  // namespace atod::teacher

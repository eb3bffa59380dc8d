#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace atod {

enum class ReduceOp { kSum, kMax };
enum class ElementType { kFloat32, kBFloat16, kInt64 };

// Collectives over the learner's ranks. Every rank makes the same calls in the
// same order. Buffers are host memory for Gloo and device memory for NCCL,
// dense and of equal size on each rank. A call blocks until its result is in
// place. After an error the communicator is unusable. Not thread-safe.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int world_size() const = 0;
  // In place over `count` elements.
  virtual absl::Status AllReduce(void* data, int64_t count, ElementType type,
                                 ReduceOp op) = 0;
  // `out` has world_size * count elements, rank r's part at r * count.
  virtual absl::Status AllGather(const void* in, void* out, int64_t count,
                                 ElementType type) = 0;
  // `in` has world_size * count elements; `out` gets the sum of part rank().
  virtual absl::Status ReduceScatter(const void* in, void* out, int64_t count,
                                     ElementType type) = 0;
  virtual absl::Status Broadcast(void* data, int64_t count, ElementType type,
                                 int root) = 0;
  virtual absl::Status Barrier() = 0;
  // Makes waiting calls of this rank return an error.
  virtual void Abort() = 0;
};

struct CommunicatorOptions {
  std::string store_host = "127.0.0.1";  // rank 0 listens here
  uint16_t store_port = 0;
  int rank = 0;
  int world_size = 1;
  absl::Duration timeout = absl::Minutes(5);
};

// World size 1: every call is the identity, nothing listens.
std::unique_ptr<Communicator> MakeLocalCommunicator();

// CPU tensors over TCP, by c10d's Gloo back-end.
absl::StatusOr<std::unique_ptr<Communicator>> MakeGlooCommunicator(
    const CommunicatorOptions& options);

// Device memory of GPU `rank mod GPUs`, by NCCL in libatod_cuda.so. Errors of
// OpenDevice("cuda") when that cannot be loaded.
absl::StatusOr<std::unique_ptr<Communicator>> MakeNcclCommunicator(
    const CommunicatorOptions& options);

}  // namespace atod

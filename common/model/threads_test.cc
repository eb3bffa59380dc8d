#include "common/model/threads.h"

#include <atomic>
#include <set>
#include <thread>
#include <vector>

#include "ATen/Parallel.h"
#include "gtest/gtest.h"

namespace atod::model {
namespace {

// Our own loops run in threads only where they are compiled for it; else each
// of them takes one core, whatever is configured, and nothing else tells.
TEST(SetComputeThreads, OurOwnLoopsRunInSoManyThreads) {
  for (const int threads : {1, 2, 3}) {
    SetComputeThreads(threads);
    std::vector<std::thread::id> ids(threads);
    std::atomic<int> parts = 0;
    at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
      ++parts;
      for (int64_t i = begin; i < end; ++i) ids[i] = std::this_thread::get_id();
    });
    EXPECT_EQ(parts, threads);
    EXPECT_EQ(std::set(ids.begin(), ids.end()).size(), threads);
  }
}

}  // namespace
}  // namespace atod::model

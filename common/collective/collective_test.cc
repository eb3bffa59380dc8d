// Real processes: the test starts itself once a rank, as
//   collective_test --rank R WORLD PORT SCENARIO
// Every rank checks its own results and says on stderr what is wrong; the exit
// status is the number of wrong things.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "common/collective/communicator.h"
#include "gtest/gtest.h"

extern char** environ;

namespace atod {
namespace {

int wrong = 0;

void Check(bool good, const std::string& what) {
  if (good) return;
  std::fprintf(stderr, "wrong: %s\n", what.c_str());
  ++wrong;
}

void Check(const absl::Status& status, const std::string& what) {
  Check(status.ok(), what + ": " + status.ToString());
}

// bfloat16 of a float that it holds exactly.
uint16_t BFloat16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return static_cast<uint16_t>(bits >> 16);
}

void CheckEveryCollective(Communicator& c) {
  const int n = c.world_size(), r = c.rank();
  constexpr int64_t kCount = 1000;
  const float ranks = static_cast<float>(n * (n - 1) / 2);

  std::vector<float> sum(kCount);
  for (int64_t i = 0; i < kCount; ++i) sum[i] = r + .5f * i;
  Check(c.AllReduce(sum.data(), kCount, ElementType::kFloat32, ReduceOp::kSum),
        "all-reduce");
  for (int64_t i = 0; i < kCount; ++i)
    Check(sum[i] == ranks + .5f * n * i, "sum " + std::to_string(i));

  std::vector<int64_t> most = {r, -r, int64_t{1} << 40};
  Check(c.AllReduce(most.data(), 3, ElementType::kInt64, ReduceOp::kMax),
        "all-reduce max");
  Check(most == std::vector<int64_t>{n - 1, 0, int64_t{1} << 40}, "max");

  std::vector<uint16_t> half(7, BFloat16(r + 1.f));
  Check(c.AllReduce(half.data(), 7, ElementType::kBFloat16, ReduceOp::kSum),
        "all-reduce bfloat16");
  Check(half == std::vector<uint16_t>(7, BFloat16(ranks + n)), "bfloat16 sum");

  std::vector<float> part = {r + .25f, r + .75f}, all(2 * n);
  Check(c.AllGather(part.data(), all.data(), 2, ElementType::kFloat32),
        "all-gather");
  for (int i = 0; i < n; ++i)
    Check(all[2 * i] == i + .25f && all[2 * i + 1] == i + .75f, "gathered");

  std::vector<float> parts(3 * n), mine(3);
  for (int i = 0; i < 3 * n; ++i) parts[i] = static_cast<float>(i + 100 * r);
  Check(c.ReduceScatter(parts.data(), mine.data(), 3, ElementType::kFloat32),
        "reduce-scatter");
  for (int i = 0; i < 3; ++i)
    Check(mine[i] == n * (3.f * r + i) + 100 * ranks, "scattered");

  for (int root = 0; root < n; ++root) {
    std::vector<int64_t> told = {r * 10 + 1, r * 10 + 2};
    Check(c.Broadcast(told.data(), 2, ElementType::kInt64, root), "broadcast");
    Check(told == std::vector<int64_t>{root * 10 + 1, root * 10 + 2}, "told");
  }
  Check(c.AllReduce(nullptr, 0, ElementType::kFloat32, ReduceOp::kSum),
        "nothing to reduce");
  Check(c.Barrier(), "barrier");
}

int RunRank(int argc, char** argv) {
  if (argc != 6) return 100;
  CommunicatorOptions options;
  options.rank = std::atoi(argv[2]);
  options.world_size = std::atoi(argv[3]);
  options.store_port = static_cast<uint16_t>(std::atoi(argv[4]));
  options.timeout = absl::Seconds(60);
  const std::string scenario = argv[5];
  auto communicator = MakeGlooCommunicator(options);
  Check(communicator.status(), "join");
  if (!communicator.ok()) return wrong;
  Communicator& c = **communicator;
  float one = 1;
  if (scenario == "all") {
    CheckEveryCollective(c);
  } else if (scenario == "rank 1 dies") {
    Check(c.Barrier(), "barrier");
    if (c.rank() == 1) _exit(0);
    const absl::Status status =
        c.AllReduce(&one, 1, ElementType::kFloat32, ReduceOp::kSum);
    Check(status.code() == absl::StatusCode::kUnavailable,
          "peer gone: " + status.ToString());
    Check(!c.Barrier().ok(), "usable after an error");
  } else if (scenario == "rank 0 aborts") {
    // Rank 1 never joins the all-reduce: it waits for rank 0's end.
    if (c.rank() == 0) {
      std::thread aborter([&c] { c.Abort(); });
      const absl::Status status =
          c.AllReduce(&one, 1, ElementType::kFloat32, ReduceOp::kSum);
      aborter.join();
      Check(status.code() == absl::StatusCode::kAborted,
            "abort: " + status.ToString());
      Check(one == 1, "buffer written after an abort");
    } else {
      Check(!c.Barrier().ok(), "barrier without rank 0");
    }
  }
  return wrong;
}

// A port that was free a moment ago.
int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  close(fd);
  return ntohs(address.sin_port);
}

void RunWorld(int world_size, const std::string& scenario) {
  const std::string port = std::to_string(FreePort());
  std::vector<pid_t> children;
  for (int rank = 0; rank < world_size; ++rank) {
    std::vector<std::string> args = {
        "collective_test",          "--rank", std::to_string(rank),
        std::to_string(world_size), port,     scenario};
    std::vector<char*> argv;
    for (std::string& arg : args) argv.push_back(arg.data());
    argv.push_back(nullptr);
    pid_t child = 0;
    ASSERT_EQ(posix_spawn(&child, "/proc/self/exe", nullptr, nullptr,
                          argv.data(), environ),
              0);
    children.push_back(child);
  }
  for (int rank = 0; rank < world_size; ++rank) {
    int status = 0;
    ASSERT_EQ(waitpid(children[rank], &status, 0), children[rank]);
    EXPECT_TRUE(WIFEXITED(status)) << "rank " << rank << " was killed";
    EXPECT_EQ(WEXITSTATUS(status), 0) << "rank " << rank;
  }
}

TEST(Gloo, TwoProcessesAgreeOnEveryCollective) { RunWorld(2, "all"); }
TEST(Gloo, FourProcessesAgreeOnEveryCollective) { RunWorld(4, "all"); }
TEST(Gloo, OneProcessIsAWorldToo) { RunWorld(1, "all"); }
TEST(Gloo, ADeadPeerIsAnErrorForTheOthers) { RunWorld(2, "rank 1 dies"); }
TEST(Gloo, AbortEndsAWaitingCall) { RunWorld(2, "rank 0 aborts"); }

TEST(Gloo, BadRanksAndAddressesAreRefused) {
  EXPECT_EQ(
      MakeGlooCommunicator({.rank = 2, .world_size = 2}).status().message(),
      "rank: found 2 of 2, expected a rank below the world size");
  const auto taken = MakeGlooCommunicator(
      {.store_host = "192.0.2.1", .store_port = 1, .rank = 0, .world_size = 1});
  EXPECT_EQ(taken.status().code(), absl::StatusCode::kUnavailable);
}

TEST(Local, EveryCollectiveIsTheIdentity) {
  wrong = 0;
  const auto c = MakeLocalCommunicator();
  CheckEveryCollective(*c);
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace atod

int main(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]) == "--rank")
    return atod::RunRank(argc, argv);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

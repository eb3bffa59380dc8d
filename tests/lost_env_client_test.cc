// The agent loop over real environment servers that die: episodes go on at
// another server and end as if nothing had happened.
#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/envs/env_client.h"
#include "services/envs/env_service.h"
#include "services/envs/fake_environment.h"
#include "services/rollout/agent_loop.h"
#include "services/rollout/fakes.h"

namespace atod {
namespace {

// The fake environment with a prompt, so that a model can play it.
class Playable : public envs::FakeEnvironment {
 public:
  Playable() {
    description_.prompt.name = "plain";
    description_.prompt.first = "{current_observation}>";
    description_.prompt.next = "{current_observation}>";
  }
  const envs::EnvDescription& description() const override {
    return description_;
  }

 private:
  envs::EnvDescription description_ = FakeEnvironment::description();
};

struct Server {
  Server() {
    auto started =
        rpc::Listen({.address = "127.0.0.1:0", .services = {&service}});
    EXPECT_TRUE(started.ok()) << started.status();
    rpc = *std::move(started);
    address = {rpc->address(), *rpc::Connect(rpc->address())};
  }
  ~Server() { rpc->Shutdown(absl::ZeroDuration()); }

  RealClock clock;
  envs::EpisodeTable table{
      {{"fake", std::make_shared<Playable>()}}, absl::Seconds(60), &clock};
  envs::EnvServiceImpl service{table, nullptr};
  std::unique_ptr<rpc::RpcServer> rpc;
  envs::EnvServer address;
};

constexpr uint32_t kSamples = 6;

// Plays all samples; `lose` runs once, while all still play.
std::vector<std::string> Play(envs::EnvClient& client,
                              const std::function<void()>& lose) {
  rollout::FakeEngine engine([](const engine::EngineRequest& r) {
    return r.noise.turn == 8
               ? std::string("<win>")
               : absl::StrCat("<", r.noise.sample, "-", r.noise.turn, ">");
  });
  const std::unique_ptr<Tokenizer> tokenizer = rollout::ByteTokenizer();
  RealClock clock;
  metrics::Registry registry;
  rollout::AgentLoop loop(engine, client, *tokenizer, nullptr, clock, registry,
                          {.slots = kSamples,
                           .max_context = 200,
                           .nonce = "n",
                           .retry_min = absl::Milliseconds(1),
                           .retry_max = absl::Milliseconds(20)});
  for (uint32_t i = 0; i < kSamples; ++i) {
    rollout::Assignment play;
    play.lease.set_purpose(v1::TRAIN);
    play.lease.set_env("fake");
    play.lease.set_split("train");
    play.lease.set_content_hash("hash");
    play.lease.set_task_id("t");
    play.lease.set_layout("windowed");
    play.lease.mutable_sampling()->set_temperature(1);
    play.lease.mutable_sampling()->set_top_p(1);
    play.lease.mutable_sampling()->set_max_tokens(10);
    play.sample = i;
    const absl::Status added = loop.Add(std::move(play));
    EXPECT_TRUE(added.ok()) << added;
  }
  bool lost = false;
  std::vector<std::string> out;
  while (out.size() < kSamples) {
    auto played = loop.Poll(absl::InfiniteDuration());
    EXPECT_TRUE(played.ok()) << played.status();
    if (!played.ok()) break;
    for (v1::Trajectory& t : *played) {
      EXPECT_EQ(t.outcome().done_reason(), v1::WON) << t.ShortDebugString();
      t.clear_started_us();
      t.clear_ended_us();
      for (v1::Turn& turn : *t.mutable_turns()) {
        turn.clear_generate_us();
        turn.clear_env_us();
      }
      out.push_back(absl::StrCat(t.id().sample(), ": ", t.DebugString()));
    }
    if (!lost && engine.seen.size() >= 2 * kSamples) {
      lost = true;
      lose();
    }
  }
  EXPECT_TRUE(lost);
  std::sort(out.begin(), out.end());
  return out;
}

TEST(LostEnvironmentServer, ItsEpisodesGoOnAtAnotherToTheSameEnd) {
  std::vector<std::string> calm;
  {
    Server only;
    envs::EnvClient client({only.address});
    calm = Play(client, [] {});
  }
  Server stays;
  auto dies = std::make_unique<Server>();
  envs::EnvClient client({dies->address, stays.address});
  size_t there = 0;
  const std::vector<std::string> rough = Play(client, [&] {
    there = stays.table.size();
    dies.reset();
  });
  EXPECT_EQ(there, kSamples / 2);
  EXPECT_EQ(rough, calm);
}

}  // namespace
}  // namespace atod

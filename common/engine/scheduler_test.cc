#include "common/engine/scheduler.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "common/base/rng.h"
#include "common/engine/fake_model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace atod::engine {
namespace {

constexpr int64_t kVocab = 50;
using testing::ElementsAre;
using testing::HasSubstr;

// A scheduler over a fake model, and what each request must draw.
class Player {
 public:
  explicit Player(const SchedulerOptions& options)
      : options_(options), scheduler(options), model(kVocab, options.rows) {
    EXPECT_TRUE(model.AllocateCache(options.rows).ok());
  }

  absl::Status Enqueue(const ScheduledRequest& r) {
    const absl::Status status = scheduler.Enqueue(r);
    if (status.ok()) requests_[r.id] = {r, r.prompt};
    return status;
  }
  ScheduledRequest Request(std::vector<int32_t> prompt, int64_t max_tokens,
                           uint64_t session = 0, uint64_t group = 0) {
    return {++last_id_, std::move(prompt), max_tokens, session, group};
  }
  uint64_t Add(std::vector<int32_t> prompt, int64_t max_tokens,
               uint64_t session = 0, uint64_t group = 0) {
    const auto r = Request(std::move(prompt), max_tokens, session, group);
    const absl::Status status = Enqueue(r);
    EXPECT_TRUE(status.ok()) << status;
    return r.id;
  }

  // Ids and numbers of tokens of what ran.
  std::vector<std::pair<uint64_t, int64_t>> Step() {
    const StepPlan plan = scheduler.Next();
    Check(plan);
    for (const CacheCopy& copy : plan.copies) {
      const absl::Status s = model.CopyCache(copy.from, copy.to, copy.rows);
      EXPECT_TRUE(s.ok()) << s;
    }
    std::vector<model::StepInput> inputs;
    for (const StepWork& w : plan.work) {
      inputs.push_back({w.tokens, w.position, w.region, std::nullopt});
      if (w.sample) inputs.back().sample.emplace();
    }
    std::vector<model::SampledToken> sampled;
    const absl::Status s = model.Step(inputs, &sampled);
    EXPECT_TRUE(s.ok()) << s;
    std::vector<Scheduler::Drawn> drawn;
    std::vector<std::pair<uint64_t, int64_t>> ran;
    for (const StepWork& w : plan.work) {
      ran.push_back({w.id, static_cast<int64_t>(w.tokens.size())});
      if (w.sample && drawn.size() < sampled.size())
        drawn.push_back(Draw(w.id, sampled[drawn.size()].token));
    }
    scheduler.Done(plan, drawn);
    return ran;
  }
  void RunAll() {
    for (int i = 0; scheduler.has_work(); ++i) {
      ASSERT_LT(i, 100'000) << "no end";
      Step();
      if (testing::Test::HasFailure()) return;
    }
  }
  bool Cancel(uint64_t id) {
    requests_.erase(id);
    return scheduler.Cancel(id);
  }
  void NewWeights() {
    ++model.weights;
    scheduler.NewWeights();
  }
  int64_t used() const { return scheduler.cache().pool().used(); }
  int64_t reused() const { return scheduler.cache().reused_tokens(); }
  int64_t computed() const { return scheduler.prompt_tokens_computed(); }
  // Prompt and response of what is finished, in the order of the ends.
  const std::vector<std::pair<uint64_t, std::vector<int32_t>>>& finished()
      const {
    return finished_;
  }

 private:
  struct Known {
    ScheduledRequest request;
    std::vector<int32_t> tokens;
  };

  void Check(const StepPlan& plan) {
    EXPECT_FALSE(plan.work.empty() && scheduler.has_work()) << "stands still";
    int64_t total = 0;
    bool prompts = false;
    for (const StepWork& w : plan.work) {
      total += static_cast<int64_t>(w.tokens.size());
      const bool decodes = w.position >= Prompt(w.id);
      EXPECT_FALSE(decodes && prompts) << "a prompt before what decodes";
      prompts |= !decodes;
    }
    EXPECT_LE(total, options_.batch_tokens);
    EXPECT_LE(scheduler.running(), static_cast<size_t>(options_.max_running));
  }
  int64_t Prompt(uint64_t id) {
    return static_cast<int64_t>(requests_.at(id).request.prompt.size());
  }
  Scheduler::Drawn Draw(uint64_t id, int32_t token) {
    Known& known = requests_.at(id);
    EXPECT_EQ(token, FakeModel::Next(known.tokens, model.weights, 0, kVocab));
    known.tokens.push_back(token);
    const bool last = static_cast<int64_t>(known.tokens.size()) ==
                      Prompt(id) + known.request.max_tokens;
    if (last) {
      finished_.push_back({id, known.tokens});
      requests_.erase(id);
    }
    return {token, last};
  }

  const SchedulerOptions options_;
  std::map<uint64_t, Known> requests_;
  std::vector<std::pair<uint64_t, std::vector<int32_t>>> finished_;
  uint64_t last_id_ = 0;

 public:
  Scheduler scheduler;
  FakeModel model;
};

std::vector<int32_t> Prompt(Rng& rng, int64_t length) {
  std::vector<int32_t> out(length);
  for (int32_t& t : out) t = static_cast<int32_t>(rng.Below(kVocab));
  return out;
}

std::vector<int32_t> Plus(std::vector<int32_t> a,
                          const std::vector<int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(Scheduler, DecodingGoesOnBesideALongPromptInPieces) {
  Player p({.rows = 320, .batch_tokens = 10, .max_running = 4});
  Rng rng(1);
  const uint64_t a = p.Add(Prompt(rng, 4), 8);
  EXPECT_THAT(p.Step(), ElementsAre(std::pair(a, 4)));
  const uint64_t b = p.Add(Prompt(rng, 21), 2);
  const uint64_t c = p.Add(Prompt(rng, 5), 2);
  EXPECT_THAT(p.Step(), ElementsAre(std::pair(a, 1), std::pair(b, 9)));
  EXPECT_THAT(p.Step(), ElementsAre(std::pair(a, 1), std::pair(b, 9)));
  EXPECT_THAT(p.Step(),
              ElementsAre(std::pair(a, 1), std::pair(b, 3), std::pair(c, 5)));
  EXPECT_THAT(p.Step(),
              ElementsAre(std::pair(a, 1), std::pair(b, 1), std::pair(c, 1)));
  p.RunAll();
  EXPECT_EQ(p.used(), 0);
}

TEST(Scheduler, ALargeRequestIsWaitedForAndNotOvertaken) {
  Player p({.rows = 64, .batch_tokens = 64, .max_running = 8});
  Rng rng(1);
  const uint64_t a = p.Add(Prompt(rng, 10), 6);
  const uint64_t large = p.Add(Prompt(rng, 40), 20);
  const uint64_t small = p.Add(Prompt(rng, 2), 2);
  EXPECT_THAT(p.Step(), ElementsAre(std::pair(a, 10)));
  EXPECT_EQ(p.scheduler.queued(), 2u);
  p.RunAll();
  ASSERT_EQ(p.finished().size(), 3u);
  EXPECT_EQ(p.finished()[0].first, a);
  EXPECT_EQ(p.finished()[1].first, large);
  EXPECT_EQ(p.finished()[2].first, small);
}

TEST(Scheduler, AFullQueuePushesBackAndTakesMoreAfterAStep) {
  Player p({.rows = 64, .batch_tokens = 64, .max_running = 1, .max_queue = 2});
  p.Add({1}, 2);
  p.Add({2}, 2);
  const auto more = p.Request({3}, 2);
  const absl::Status full = p.Enqueue(more);
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(full.message(), HasSubstr("queue: found 2 waiting requests"));
  p.Step();
  EXPECT_TRUE(p.Enqueue(more).ok());
  p.RunAll();
  EXPECT_EQ(p.finished().size(), 3u);
}

TEST(Scheduler, RequestsThatCanNeverRunAreRefused) {
  Player p({.rows = 64, .batch_tokens = 64, .max_running = 2});
  const auto refused = [&](const ScheduledRequest& r) {
    const absl::Status s = p.scheduler.Enqueue(r);
    EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument);
    return std::string(s.message());
  };
  EXPECT_THAT(refused({1, {1, 2}, 63, 0, 0}), HasSubstr("at most 64"));
  p.Add({1}, 5, /*session=*/9);
  EXPECT_THAT(refused({1, {1}, 5, 0, 0}), HasSubstr("id: found 1"));
  EXPECT_THAT(refused({2, {1}, 5, 9, 0}), HasSubstr("session: found 9"));
  p.Step();
  EXPECT_THAT(refused({1, {1}, 5, 0, 0}), HasSubstr("id: found 1"));
  EXPECT_THAT(refused({2, {1}, 5, 9, 0}), HasSubstr("session: found 9"));
  p.RunAll();
  p.Add({1}, 5, 9);
  p.RunAll();
}

TEST(Scheduler, ASessionComputesOnlyWhatItsPromptDoesNotShare) {
  Player p({.rows = 512, .batch_tokens = 64, .max_running = 2});
  Rng rng(2);
  p.Add(Prompt(rng, 30), 5, 7);
  p.RunAll();
  EXPECT_EQ(p.computed(), 30);
  // The key of the last token was never computed: 34 are held.
  std::vector<int32_t> next = Plus(p.finished().back().second, Prompt(rng, 10));
  p.Add(next, 5, 7);
  p.RunAll();
  EXPECT_EQ(p.computed(), 30 + 11);
  EXPECT_EQ(p.reused(), 34);
  next[20] ^= 1;
  p.Add(next, 5, 7);
  p.RunAll();
  EXPECT_EQ(p.computed(), 30 + 11 + 25);
  // All of a prompt is held: its last token gives the logits.
  p.Add(std::vector<int32_t>(next.begin(), next.begin() + 12), 5, 7);
  p.RunAll();
  EXPECT_EQ(p.computed(), 30 + 11 + 25 + 1);
  EXPECT_EQ(p.used(), 16) << "12 + 4 tokens are held";
  p.scheduler.EndSession(7);
  EXPECT_EQ(p.used(), 0);
}

TEST(Scheduler, ASessionGrowsInPlaceOrByCopy) {
  Player p({.rows = 256, .batch_tokens = 64, .max_running = 4});
  Rng rng(2);
  p.Add(Prompt(rng, 14), 2, 1);
  p.RunAll();
  p.Add(Plus(p.finished().back().second, Prompt(rng, 10)), 2, 1);
  p.RunAll();
  EXPECT_EQ(p.model.copied_rows, 0) << "the room behind was free";
  const auto first = p.finished().back().second;
  p.Add(Prompt(rng, 14), 2, 2);  // behind it
  p.RunAll();
  p.Add(Plus(first, Prompt(rng, 20)), 2, 1);
  p.RunAll();
  EXPECT_EQ(p.model.copied_rows, 27);
  EXPECT_EQ(p.reused(), 15 + 27);
}

TEST(Scheduler, IdleSessionsGiveWayLeastRecentlyUsedFirst) {
  Player p({.rows = 160, .batch_tokens = 64, .max_running = 4});
  Rng rng(2);
  std::map<uint64_t, std::vector<int32_t>> said;
  for (const uint64_t session : {1, 2, 3, 1}) {
    auto prompt = said.contains(session) ? said[session] : Prompt(rng, 30);
    p.Add(std::move(prompt), 2, session);
    p.RunAll();
    said[session] = p.finished().back().second;
  }
  EXPECT_EQ(p.scheduler.cache().idle_sessions(), 3);
  EXPECT_EQ(p.used(), 48 + 32 + 32);
  p.Add(Prompt(rng, 50), 10, 0);
  p.RunAll();
  EXPECT_EQ(p.scheduler.cache().evicted_sessions(), 1);
  const int64_t before = p.reused();
  p.Add(said[1], 2, 1);
  p.RunAll();
  EXPECT_GT(p.reused(), before) << "1 was used after 2";
  const int64_t kept = p.reused();
  p.Add(said[2], 2, 2);
  p.RunAll();
  EXPECT_EQ(p.reused(), kept) << "2 gave way and is computed again";
}

TEST(Scheduler, AGroupsCommonPromptIsComputedOnce) {
  Player p({.rows = 2048, .batch_tokens = 50, .max_running = 16});
  Rng rng(3);
  const auto common = Prompt(rng, 120);
  for (int i = 0; i < 8; ++i) p.Add(Plus(common, Prompt(rng, 3)), 4, 0, 5);
  p.Add(Plus(common, {1, 2, 3}), 4, 0, 6);  // another group computes its own
  p.RunAll();
  EXPECT_EQ(p.finished().size(), 9u);
  // Beginnings of the tails may be equal by chance.
  EXPECT_LE(p.computed(), 2 * 120 + 9 * 3);
  EXPECT_GE(p.computed(), 2 * 120 + 9);
  EXPECT_EQ(p.computed() + p.reused(), 9 * 123);
  EXPECT_EQ(p.used(), 0);
}

TEST(Scheduler, TheSamePromptOfAGroupIsComputedOnceButForItsLastToken) {
  Player p({.rows = 2048, .batch_tokens = 500, .max_running = 16});
  Rng rng(3);
  const auto common = Prompt(rng, 100);
  for (int i = 0; i < 8; ++i) p.Add(common, 1, 0, 5);
  p.RunAll();
  EXPECT_EQ(p.computed(), 100 + 7);
}

TEST(Scheduler, WhenTheFirstOfAGroupIsCancelledAnotherComputesThePrompt) {
  Player p({.rows = 2048, .batch_tokens = 50, .max_running = 16});
  Rng rng(3);
  const auto common = Prompt(rng, 120);
  std::vector<uint64_t> ids;
  for (int i = 0; i < 8; ++i) ids.push_back(p.Add(common, 4, 0, 5));
  p.Step();
  EXPECT_TRUE(p.Cancel(ids[0]));
  EXPECT_FALSE(p.Cancel(ids[0]));
  p.RunAll();
  EXPECT_EQ(p.finished().size(), 7u);
  EXPECT_EQ(p.computed(), 50 + 120 + 6);
  EXPECT_EQ(p.used(), 0);
}

TEST(Scheduler, NewWeightsMakeAllThatIsHeldWorthless) {
  Player p({.rows = 512, .batch_tokens = 64, .max_running = 4});
  Rng rng(4);
  p.Add(Prompt(rng, 40), 3, 1);
  p.RunAll();
  p.Add(Prompt(rng, 20), 6, 2);  // draws under both weights
  p.Step();
  p.Step();
  p.NewWeights();
  EXPECT_EQ(p.scheduler.cache().idle_sessions(), 0);
  p.Add(p.finished().front().second, 3, 1);
  p.RunAll();
  EXPECT_EQ(p.reused(), 0);
  EXPECT_EQ(p.scheduler.cache().idle_sessions(), 2) << "sessions live on";
}

// Sessions with room for all: what is computed follows from the prompts alone.
TEST(Scheduler, RandomSessionsComputeWhatAReferenceSays) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    Player p({.rows = 16'384, .batch_tokens = 40, .max_running = 8});
    std::map<uint64_t, std::vector<int32_t>> held;
    int64_t expected = 0, reused = 0;
    for (int i = 0; i < 100; ++i) {
      const uint64_t session = 1 + rng.Below(5);
      std::vector<int32_t>& before = held[session];
      std::vector<int32_t> prompt(
          before.begin(), before.begin() + rng.Below(before.size() + 1));
      prompt =
          Plus(prompt, Prompt(rng, 1 + static_cast<int64_t>(rng.Below(20))));
      int64_t common = 0;
      while (common + 1 < static_cast<int64_t>(prompt.size()) &&
             common < static_cast<int64_t>(before.size()) &&
             prompt[common] == before[common])
        ++common;
      expected += static_cast<int64_t>(prompt.size()) - common;
      reused += common;
      p.Add(prompt, 1 + static_cast<int64_t>(rng.Below(6)), session);
      p.RunAll();
      before = p.finished().back().second;
      before.pop_back();
    }
    EXPECT_EQ(p.computed(), expected);
    EXPECT_EQ(p.reused(), reused);
    EXPECT_EQ(p.scheduler.cache().evicted_sessions(), 0);
  }
}

// Everything at once, in caches that are too small for it. The fake model
// finds each row that is not what it must be.
class RandomOperations {
 public:
  explicit RandomOperations(uint64_t seed)
      : rng_(seed),
        player_({.rows = 16 * (8 + static_cast<int64_t>(rng_.Below(40))),
                 .batch_tokens = 8 + static_cast<int64_t>(rng_.Below(60)),
                 .max_running = 1 + static_cast<int64_t>(rng_.Below(8)),
                 .max_queue = 5}) {
    for (int i = 0; i < 4; ++i) beginnings_.push_back(Prompt(rng_, 60));
  }
  void Step() {
    const uint64_t what = rng_.Below(100);
    if (what < 30)
      Add();
    else if (what < 34)
      CancelOne();
    else if (what < 37)
      player_.scheduler.EndSession(1 + rng_.Below(6));
    else if (what < 38)
      player_.NewWeights();
    else
      player_.Step();
  }
  void End() {
    player_.RunAll();
    EXPECT_EQ(player_.finished().size() + cancelled_, added_);
    for (uint64_t s = 1; s <= 6; ++s) player_.scheduler.EndSession(s);
    EXPECT_EQ(player_.used(), 0) << "rows leaked";
    EXPECT_EQ(player_.scheduler.cache().pool().regions(), 0u);
  }
  Player& player() { return player_; }

 private:
  void Add() {
    std::vector<int32_t> prompt = beginnings_[rng_.Below(4)];
    prompt.resize(rng_.Below(60));
    if (!player_.finished().empty() && rng_.Below(2) == 0)
      prompt = player_.finished()[rng_.Below(player_.finished().size())].second;
    prompt =
        Plus(prompt, Prompt(rng_, 1 + static_cast<int64_t>(rng_.Below(9))));
    const auto r = player_.Request(
        std::move(prompt), 1 + static_cast<int64_t>(rng_.Below(12)),
        rng_.Below(2) * (1 + rng_.Below(6)), rng_.Below(3));
    const absl::Status status = player_.Enqueue(r);
    if (!status.ok()) return;
    ++added_;
    ids_.push_back(r.id);
  }
  void CancelOne() {
    if (!ids_.empty())
      cancelled_ += player_.Cancel(ids_[rng_.Below(ids_.size())]);
  }

  Rng rng_;
  Player player_;
  std::vector<std::vector<int32_t>> beginnings_;
  std::vector<uint64_t> ids_;
  size_t added_ = 0, cancelled_ = 0;
};

TEST(Scheduler, RandomOperationsLoseNothingAndReadNoWrongRow) {
  int64_t reused = 0, evicted = 0, copied = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    RandomOperations run(seed);
    for (int i = 0; i < 1500; ++i) {
      run.Step();
      if (testing::Test::HasFailure()) return;
    }
    run.End();
    reused += run.player().reused();
    evicted += run.player().scheduler.cache().evicted_sessions();
    copied += run.player().model.copied_rows;
  }
  EXPECT_GT(reused, 10'000);
  EXPECT_GT(evicted, 100);
  EXPECT_GT(copied, 10'000);
}

}  // namespace
}  // namespace atod::engine

#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "common/base/file.h"
#include "common/base/rng.h"
#include "common/engine/engine.h"
#include "common/tokenizer/tokenizer.h"
#include "common/tokenizer/unicode.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "services/envs/env_caller.h"
#include "services/teacher/teacher_caller.h"

namespace atod::rollout {

inline constexpr int32_t kEndToken = 256;

// Token b is byte b; 256 ends a response.
inline std::unique_ptr<Tokenizer> ByteTokenizer() {
  nlohmann::json vocab;
  for (int b = 0; b < 256; ++b) {
    vocab[ToByteLevel(std::string(1, static_cast<char>(b)))] = b;
  }
  const nlohmann::json whole = {{"version", "1.0"},
                                {"added_tokens",
                                 {{{"id", kEndToken},
                                   {"content", "<|im_end|>"},
                                   {"single_word", false},
                                   {"lstrip", false},
                                   {"rstrip", false},
                                   {"normalized", false},
                                   {"special", true}}}},
                                {"normalizer", nullptr},
                                {"pre_tokenizer",
                                 {{"type", "ByteLevel"},
                                  {"add_prefix_space", false},
                                  {"trim_offsets", false},
                                  {"use_regex", true}}},
                                {"decoder",
                                 {{"type", "ByteLevel"},
                                  {"add_prefix_space", false},
                                  {"trim_offsets", false},
                                  {"use_regex", true}}},
                                {"model",
                                 {{"type", "BPE"},
                                  {"vocab", vocab},
                                  {"merges", nlohmann::json::array()}}}};
  const std::string dir = ::testing::TempDir() + "/byte_tokenizer";
  EXPECT_TRUE(MakeDirs(dir).ok());
  EXPECT_TRUE(WriteFileAtomic(dir + "/tokenizer.json", whole.dump()).ok());
  auto tokenizer = Tokenizer::Load(dir);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

// Answers each request with the text of a script and finishes requests in an
// order of its own. Owned by one thread, like any engine.
class FakeEngine final : public engine::Engine {
 public:
  using Script = std::function<std::string(const engine::EngineRequest&)>;
  explicit FakeEngine(Script script) : script_(std::move(script)) {}

  absl::Status Enqueue(engine::EngineRequest request) override {
    for (const engine::EngineRequest& living : living_) {
      if (living.id == request.id) {
        return absl::InvalidArgumentError("id lives already");
      }
    }
    seen.push_back(request);
    living_.push_back(std::move(request));
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<engine::EngineResult>> Step() override {
    if (broken) return absl::InternalError("engine broke");
    std::vector<engine::EngineResult> results;
    if (paused) return results;
    // Some requests take longer than others.
    for (size_t i = living_.size(); i-- > 0;) {
      if (order_.Below(3) == 0 && living_.size() > 1) continue;
      results.push_back(Answer(living_[i]));
      living_.erase(living_.begin() + i);
    }
    return results;
  }
  bool has_work() const override { return !living_.empty(); }
  void EndSession(uint64_t session) override { ended.push_back(session); }
  bool Cancel(uint64_t id) override {
    return std::erase_if(living_, [&](const engine::EngineRequest& living) {
             return living.id == id;
           }) > 0;
  }
  void CancelAll() override { living_.clear(); }
  engine::EngineStats stats() const override { return counted; }

  // The log-prob of the i-th token of a response.
  static float LogProb(int32_t token, size_t i) {
    return -static_cast<float>(token) / 512 - static_cast<float>(i);
  }

  std::vector<engine::EngineRequest> seen;
  std::vector<uint64_t> ended;  // sessions
  engine::EngineStats counted;
  bool broken = false;
  bool paused = false;

 private:
  engine::EngineResult Answer(const engine::EngineRequest& request) {
    engine::EngineResult result;
    result.id = request.id;
    for (const char c : script_(request)) {
      if (result.tokens.size() == request.sampling.max_tokens) break;
      result.tokens.push_back(static_cast<unsigned char>(c));
    }
    if (result.tokens.size() < request.sampling.max_tokens) {
      result.tokens.push_back(kEndToken);
      result.finish = engine::FinishReason::kStop;
    } else {
      result.finish = engine::FinishReason::kLength;
    }
    for (size_t i = 0; i < result.tokens.size(); ++i) {
      result.logprobs.push_back(LogProb(result.tokens[i], i));
    }
    return result;
  }

  const Script script_;
  std::vector<engine::EngineRequest> living_;
  Rng order_{7};
};

// A corridor: task "len-N" is won after N actions other than "wait". The
// observation shows all actions so far, so a wrong replay shows. A text is
// valid when it begins with a blank. Thread-safe.
class FakeEnvs final : public envs::EnvCaller {
 public:
  absl::StatusOr<envs::EnvDescription> Describe(
      const std::string& env) override {
    absl::MutexLock lock(&mutex_);
    if (away_) return absl::UnavailableError("server x: nobody listens");
    if (!describe_.ok()) return describe_;
    if (env != "corridor") return absl::NotFoundError(env);
    return description_;
  }
  void Reset(
      const envs::ResetRequest& request,
      std::function<void(absl::StatusOr<envs::ResetResult>)> done) override {
    Deliver(
        [this, request, done = std::move(done)] { done(DoReset(request)); });
  }
  void Step(
      const std::string& episode_id, uint32_t turn_index,
      const std::string& model_text,
      std::function<void(absl::StatusOr<envs::StepResult>)> done) override {
    Deliver([this, episode_id, turn_index, model_text, done = std::move(done)] {
      done(DoStep(episode_id, turn_index, model_text));
    });
  }
  void Close(const std::string& episode_id) override {
    absl::MutexLock lock(&mutex_);
    closed_.push_back(episode_id);
    episodes_.erase(episode_id);
  }

  void set_description(envs::EnvDescription d) {
    absl::MutexLock lock(&mutex_);
    description_ = std::move(d);
  }
  // Calls wait until the test releases them.
  void Hold() {
    absl::MutexLock lock(&mutex_);
    hold_ = true;
  }
  // Until so many calls wait.
  void AwaitWaiting(size_t count) {
    absl::MutexLock lock(&mutex_);
    const auto enough = [&] { return held_.size() >= count; };
    mutex_.Await(absl::Condition(&enough));
  }
  // Ends Hold and answers what waits.
  void Release() {
    {
      absl::MutexLock lock(&mutex_);
      hold_ = false;
    }
    Rng rng(0);
    while (ReleaseOne(rng)) {
    }
  }
  // Answers one waiting call; false when none waits.
  bool ReleaseOne(Rng& rng) {
    std::function<void()> call;
    {
      absl::MutexLock lock(&mutex_);
      if (held_.empty()) return false;
      const size_t i = rng.Below(held_.size());
      call = std::move(held_[i]);
      held_.erase(held_.begin() + i);
    }
    call();
    return true;
  }
  // The next calls fail with these.
  void FailNext(std::vector<absl::Status> statuses) {
    absl::MutexLock lock(&mutex_);
    failures_ = std::move(statuses);
  }
  // Describe fails with this; OK: it does not.
  void FailDescribe(absl::Status status) {
    absl::MutexLock lock(&mutex_);
    describe_ = std::move(status);
  }
  // Nothing is answered.
  void SetAway(bool away) {
    absl::MutexLock lock(&mutex_);
    away_ = away;
  }
  // What a server knows dies with it.
  void ForgetEpisodes() {
    absl::MutexLock lock(&mutex_);
    episodes_.clear();
  }
  size_t living() {
    absl::MutexLock lock(&mutex_);
    return episodes_.size();
  }
  size_t resets() {
    absl::MutexLock lock(&mutex_);
    return request_ids_.size();
  }

  static envs::EnvDescription Corridor() {
    envs::EnvDescription d;
    d.name = "corridor";
    d.splits = {{"train", 100, "hash-of-train"}};
    d.default_max_turns = 6;
    d.prompt.name = "corridor";
    d.prompt.first = "{current_observation}>";
    d.prompt.next = "{action_history}|{current_observation}>";
    d.prompt.grow = "\n{current_observation}>";
    d.prompt.history_line = "{action}";
    d.prompt.history_join = ",";
    d.prompt.window = 2;
    return d;
  }

 private:
  struct Walk {
    size_t length = 0;
    size_t max_turns = 0;
    std::vector<std::string> actions;
    envs::StepResult last;
  };

  void Deliver(std::function<void()> call) {
    {
      absl::MutexLock lock(&mutex_);
      if (hold_) {
        held_.push_back(std::move(call));
        return;
      }
    }
    call();
  }
  absl::Status Injected() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (away_) return absl::UnavailableError("server x: nobody listens");
    if (failures_.empty()) return absl::OkStatus();
    const absl::Status status = failures_.front();
    failures_.erase(failures_.begin());
    return status;
  }
  static envs::Observation Look(const Walk& walk) {
    const auto steps = static_cast<size_t>(
        std::count_if(walk.actions.begin(), walk.actions.end(),
                      [](const auto& a) { return a != "wait"; }));
    envs::Observation o;
    o.turn_index = static_cast<uint32_t>(walk.actions.size());
    o.text = absl::StrCat("at ", absl::StrJoin(walk.actions, "+"));
    o.task = "walk";
    o.category = "hall";
    o.anchor = absl::StrCat("place ", steps);
    o.success = steps >= walk.length;
    o.task_score = static_cast<float>(steps);
    o.done = o.success || walk.actions.size() >= walk.max_turns;
    if (o.done) {
      o.done_reason =
          o.success ? envs::DoneReason::kWon : envs::DoneReason::kLimit;
    }
    o.reward = o.success ? 10 : 0;
    return o;
  }
  static envs::StepResult Act(Walk& walk, const std::string& text) {
    walk.last.action_valid = absl::StartsWith(text, " ");
    walk.last.executed_action = walk.last.action_valid ? text.substr(1) : text;
    walk.last.action_admissible = walk.last.executed_action != "wait";
    walk.actions.push_back(walk.last.executed_action);
    walk.last.observation = Look(walk);
    return walk.last;
  }
  absl::StatusOr<envs::ResetResult> DoReset(const envs::ResetRequest& request) {
    absl::MutexLock lock(&mutex_);
    if (absl::Status s = Injected(); !s.ok()) return s;
    EXPECT_TRUE(request_ids_.insert(request.request_id).second)
        << request.request_id << " used twice";
    const envs::SplitInfo& split = description_.splits[0];
    if (request.options.split != split.name ||
        (!request.content_hash.empty() &&
         request.content_hash != split.content_hash)) {
      return absl::FailedPreconditionError(
          absl::StrCat("content_hash: found ", split.content_hash));
    }
    Walk walk;
    walk.length = request.options.task_id.back() - '0';
    walk.max_turns =
        request.options.max_turns > 0 ? request.options.max_turns : 1000;
    envs::ResetResult result;
    result.episode_id = absl::StrCat("walk-", next_++);
    result.first = Look(walk);
    for (const std::string& action : request.replay_actions) {
      result.replayed.push_back(Act(walk, " " + action));
    }
    episodes_[result.episode_id] = std::move(walk);
    return result;
  }
  absl::StatusOr<envs::StepResult> DoStep(const std::string& id,
                                          uint32_t turn_index,
                                          const std::string& text) {
    absl::MutexLock lock(&mutex_);
    if (absl::Status s = Injected(); !s.ok()) return s;
    const auto it = episodes_.find(id);
    if (it == episodes_.end()) return absl::NotFoundError(id);
    Walk& walk = it->second;
    if (turn_index + 1 == walk.actions.size()) return walk.last;
    if (turn_index != walk.actions.size()) {
      return absl::FailedPreconditionError("turn_index");
    }
    return Act(walk, text);
  }

  absl::Mutex mutex_;
  envs::EnvDescription description_ ABSL_GUARDED_BY(mutex_) = Corridor();
  bool hold_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::function<void()>> held_ ABSL_GUARDED_BY(mutex_);
  bool away_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status describe_ ABSL_GUARDED_BY(mutex_);
  std::vector<absl::Status> failures_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Walk> episodes_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> request_ids_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> closed_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Scores at once, or when the test says so. Thread-safe.
class FakeTeacher final : public teacher::TeacherCaller {
 public:
  using Done = std::function<void(absl::StatusOr<teacher::TeacherReply>)>;

  void Score(teacher::TeacherRequest request, Done done) override {
    {
      absl::MutexLock lock(&mutex_);
      seen_.push_back(request);
      if (hold_) {
        held_.emplace_back(std::move(request), std::move(done));
        return;
      }
    }
    done(Answer(request));
  }

  void Hold() {
    absl::MutexLock lock(&mutex_);
    hold_ = true;
  }
  size_t waiting() {
    absl::MutexLock lock(&mutex_);
    return held_.size();
  }
  void AwaitWaiting() {
    absl::MutexLock lock(&mutex_);
    const auto some = [&] { return !held_.empty(); };
    mutex_.Await(absl::Condition(&some));
  }
  // Ends Hold and answers what waits.
  void Release() {
    {
      absl::MutexLock lock(&mutex_);
      hold_ = false;
    }
    Rng rng(0);
    while (ReleaseOne(rng)) {
    }
  }
  std::vector<teacher::TeacherRequest> seen() {
    absl::MutexLock lock(&mutex_);
    return seen_;
  }
  bool ReleaseOne(Rng& rng, const absl::Status& status = absl::OkStatus()) {
    std::pair<teacher::TeacherRequest, Done> call;
    {
      absl::MutexLock lock(&mutex_);
      if (held_.empty()) return false;
      const size_t i = rng.Below(held_.size());
      call = std::move(held_[i]);
      held_.erase(held_.begin() + i);
    }
    if (status.ok()) {
      call.second(Answer(call.first));
    } else {
      call.second(status);
    }
    return true;
  }

  // Differs from token to token and from model to model.
  static float LogProb(const std::string& model, int32_t token) {
    return -static_cast<float>(token) / 256 - static_cast<float>(model.size());
  }
  static teacher::TeacherReply Answer(const teacher::TeacherRequest& request) {
    teacher::TeacherReply reply;
    reply.model = request.model;
    reply.weights_hash = "teacher weights";
    reply.temperature = request.temperature;
    for (uint32_t i = 0; i < request.length; ++i) {
      reply.logprobs.push_back(
          LogProb(request.model, request.tokens[request.begin + i]));
    }
    return reply;
  }

 private:
  absl::Mutex mutex_;
  bool hold_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<teacher::TeacherRequest> seen_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::pair<teacher::TeacherRequest, Done>> held_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace atod::rollout

#include "services/teacher/teacher_service.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <memory>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "common/rpc/rpc_status.h"

namespace atod::teacher {
namespace {

absl::Status Mismatch(const char* field, const std::string& found,
                      const std::string& expected) {
  return absl::FailedPreconditionError(
      absl::StrCat(field, ": found ", found, ", expected ", expected));
}

absl::StatusOr<ScoreRequest> ToRequest(const v1::ScoreItem& item,
                                       const v1::ModelInfo& model) {
  ScoreRequest request;
  request.tokens.reserve(item.tokens_size());
  for (const uint32_t token : item.tokens()) {
    if (token >= model.vocab_size()) {
      return absl::InvalidArgumentError(absl::StrCat("tokens: found ", token,
                                                     ", expected less than ",
                                                     model.vocab_size()));
    }
    request.tokens.push_back(static_cast<int32_t>(token));
  }
  for (const v1::TokenSpan& span : item.spans()) {
    request.spans.push_back({span.begin(), span.length()});
  }
  if (item.affinity_key().size() > kMaxSession) {
    return absl::InvalidArgumentError(
        absl::StrCat("affinity_key: found ", item.affinity_key().size(),
                     " bytes, expected at most ", kMaxSession));
  }
  request.session = item.affinity_key();
  const absl::Status valid =
      Validate(request, model.vocab_size(), model.max_context());
  if (!valid.ok()) return valid;
  return request;
}

size_t ScoredTokens(const v1::ScoreItem& item) {
  size_t scored = 0;
  for (const v1::TokenSpan& span : item.spans()) scored += span.length();
  return scored;
}

void SetStatus(const absl::Status& status, v1::ScoreItemReply& item) {
  item.set_code(static_cast<int>(status.code()));
  item.set_message(std::string(status.message()));
}

}  // namespace

TeacherServiceImpl::TeacherServiceImpl(std::vector<Model> models,
                                       Options options,
                                       metrics::Registry& registry)
    : models_(std::move(models)), options_(options), registry_(registry) {}

absl::StatusOr<const TeacherServiceImpl::Model*> TeacherServiceImpl::ModelOf(
    const std::string& name) const {
  if (name.empty() && models_.size() == 1) return &models_[0];
  std::vector<std::string> names;
  for (const Model& model : models_) {
    if (model.info.name() == name) return &model;
    names.push_back(model.info.name());
  }
  return absl::NotFoundError(absl::StrCat(
      "model: found ", name.empty() ? "none" : name, ", expected ",
      names.size() > 1 ? "one of: " : "", absl::StrJoin(names, ", ")));
}

absl::Status TeacherServiceImpl::CheckRequest(
    const v1::ScoreRequest& request, const v1::ModelInfo& model) const {
  if (!request.expected_tokenizer_hash().empty() &&
      request.expected_tokenizer_hash() != model.tokenizer_hash()) {
    return Mismatch("tokenizer_hash of the teacher", model.tokenizer_hash(),
                    request.expected_tokenizer_hash());
  }
  if (!request.expected_weights_hash().empty() &&
      request.expected_weights_hash() != model.weights_hash()) {
    return Mismatch("weights_hash of the teacher", model.weights_hash(),
                    request.expected_weights_hash());
  }
  if (!std::isfinite(request.temperature()) || request.temperature() <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("temperature: found ", request.temperature(),
                     ", expected a number above 0"));
  }
  if (request.top_k() > std::min(kMaxTopK, model.vocab_size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("top_k: found ", request.top_k(), ", expected at most ",
                     std::min(kMaxTopK, model.vocab_size())));
  }
  if (request.items().empty() ||
      request.items_size() > static_cast<int>(options_.max_items)) {
    return absl::InvalidArgumentError(
        absl::StrCat("items: found ", request.items_size(), ", expected 1 to ",
                     options_.max_items));
  }
  uint64_t tokens = 0;
  std::unordered_set<uint64_t> ids;
  for (const v1::ScoreItem& item : request.items()) {
    tokens += item.tokens_size();
    if (!ids.insert(item.item_id()).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("item_id: found ", item.item_id(), " twice"));
    }
  }
  if (tokens > options_.max_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokens of the request: found ", tokens,
                     ", expected at most ", options_.max_tokens));
  }
  return absl::OkStatus();
}

void TeacherServiceImpl::CountAnswer(const absl::Status& status) {
  registry_
      .Counter(metrics::kTeacherRequests,
               {{"code", absl::StatusCodeToString(status.code())}})
      .Increment();
}

void TeacherServiceImpl::Handle(
    const v1::ScoreRequest& request,
    std::function<void(absl::Status, v1::ScoreReply)> done) {
  v1::ScoreReply reply;
  reply.set_request_id(request.request_id());
  reply.set_temperature(request.temperature());
  auto finish = [this, done = std::move(done)](absl::Status status,
                                               v1::ScoreReply r) {
    CountAnswer(status);
    done(std::move(status), std::move(r));
  };
  const absl::StatusOr<const Model*> model = ModelOf(request.model());
  if (!model.ok()) return finish(model.status(), std::move(reply));
  const v1::ModelInfo& info = (*model)->info;
  reply.set_weights_hash(info.weights_hash());
  if (const absl::Status status = CheckRequest(request, info); !status.ok()) {
    return finish(status, std::move(reply));
  }
  ScoreJob job;
  job.options = {.temperature = request.temperature(),
                 .want_entropy = request.want_entropy(),
                 .top_k = request.top_k()};
  // Of each item that is scored: its place in the reply and its length.
  std::vector<std::pair<int, size_t>> scored;
  for (const v1::ScoreItem& item : request.items()) {
    v1::ScoreItemReply& out = *reply.add_items();
    out.set_item_id(item.item_id());
    absl::StatusOr<ScoreRequest> one = ToRequest(item, info);
    if (!one.ok()) {
      SetStatus(one.status(), out);
      continue;
    }
    scored.emplace_back(reply.items_size() - 1, ScoredTokens(item));
    job.requests.push_back(*std::move(one));
  }
  if (job.requests.empty()) return finish(absl::OkStatus(), std::move(reply));

  const bool want_entropy = request.want_entropy();
  const absl::Status queued = (*model)->batcher->Enqueue(
      std::move(job), [finish, reply, want_entropy,
                       scored](absl::StatusOr<ScoreJobResult> result) mutable {
        if (!result.ok()) return finish(result.status(), std::move(reply));
        for (size_t i = 0; i < scored.size(); ++i) {
          v1::ScoreItemReply& out = *reply.mutable_items(scored[i].first);
          const ScoreResult& from = result->results[i];
          const size_t length = scored[i].second;
          if (from.logprobs.size() != length ||
              (want_entropy && from.entropy.size() != length)) {
            SetStatus(absl::InternalError(absl::StrCat("logprobs: found ",
                                                       from.logprobs.size(),
                                                       ", expected ", length)),
                      out);
            continue;
          }
          out.mutable_logprobs()->Add(from.logprobs.begin(),
                                      from.logprobs.end());
          out.mutable_entropy()->Add(from.entropy.begin(), from.entropy.end());
          out.mutable_top_ids()->Add(from.top_ids.begin(), from.top_ids.end());
          out.mutable_top_logprobs()->Add(from.top_logprobs.begin(),
                                          from.top_logprobs.end());
        }
        reply.set_tokens(result->tokens);
        reply.set_cached_tokens(result->cached);
        reply.set_queue_us(absl::ToInt64Microseconds(result->queued));
        reply.set_compute_us(absl::ToInt64Microseconds(result->computed));
        finish(absl::OkStatus(), std::move(reply));
      });
  if (!queued.ok()) finish(queued, std::move(reply));
}

grpc::ServerUnaryReactor* TeacherServiceImpl::ListModels(
    grpc::CallbackServerContext* context, const v1::ListModelsRequest*,
    v1::ListModelsReply* reply) {
  for (const Model& model : models_) *reply->add_models() = model.info;
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* TeacherServiceImpl::Score(
    grpc::CallbackServerContext* context, const v1::ScoreRequest* request,
    v1::ScoreReply* reply) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  Handle(*request, [reactor, reply](absl::Status status, v1::ScoreReply r) {
    *reply = std::move(r);
    reactor->Finish(rpc::ToGrpc(status));
  });
  return reactor;
}

// Reads while fewer than `stream_requests` are in flight, writes replies as
// they come, and finishes when the last reply of a closed stream is in: until
// then callbacks of the batcher point here.
class TeacherServiceImpl::Stream final
    : public grpc::ServerBidiReactor<v1::ScoreRequest, v1::ScoreReply> {
 public:
  explicit Stream(TeacherServiceImpl& service) : service_(service) {
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    {
      absl::MutexLock lock(&mutex_);
      reading_ = false;
      if (!ok) {
        closed_ = true;
        MaybeFinish();
        return;
      }
      ++in_flight_;
    }
    service_.Handle(request_, [this](absl::Status status, v1::ScoreReply r) {
      r.set_code(static_cast<int>(status.code()));
      r.set_message(std::string(status.message()));
      Answer(std::move(r));
    });
    absl::MutexLock lock(&mutex_);
    can_read_ = true;
    MaybeRead();
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    replies_.pop_front();
    if (!ok) closed_ = cancelled_ = true;
    if (cancelled_) {
      replies_.clear();
    } else if (!replies_.empty()) {
      StartWrite(&replies_.front());
    }
    MaybeRead();
    MaybeFinish();
  }

  void OnCancel() override {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
  }

  void OnDone() override { delete this; }

 private:
  void Answer(v1::ScoreReply reply) {
    absl::MutexLock lock(&mutex_);
    --in_flight_;
    // A peer that only closed its side still wants its replies.
    if (!cancelled_) {
      replies_.push_back(std::move(reply));
      if (replies_.size() == 1) StartWrite(&replies_.front());
    }
    MaybeRead();
    MaybeFinish();
  }
  void MaybeRead() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!can_read_ || reading_ || closed_) return;
    if (in_flight_ + replies_.size() >= service_.options_.stream_requests) {
      return;
    }
    reading_ = true;
    can_read_ = false;
    StartRead(&request_);
  }
  void MaybeFinish() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!closed_ || reading_ || in_flight_ > 0 || !replies_.empty() ||
        std::exchange(finished_, true)) {
      return;
    }
    Finish(grpc::Status::OK);
  }

  TeacherServiceImpl& service_;
  v1::ScoreRequest request_;  // of OnReadDone
  absl::Mutex mutex_;
  std::deque<v1::ScoreReply> replies_ ABSL_GUARDED_BY(mutex_);
  size_t in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  bool reading_ ABSL_GUARDED_BY(mutex_) = true;
  bool can_read_ ABSL_GUARDED_BY(mutex_) = false;   // request_ is free
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;     // no more requests
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;  // no more replies
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

grpc::ServerBidiReactor<v1::ScoreRequest, v1::ScoreReply>*
TeacherServiceImpl::ScoreStream(grpc::CallbackServerContext*) {
  return new Stream(*this);
}

}  // namespace atod::teacher

#include "services/teacher/teacher_client.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/log.h"
#include "common/rpc/channel.h"
#include "common/tokenizer/difference.h"

namespace atod::teacher {
namespace {

// How often requests are looked through for time-outs and repeats.
constexpr absl::Duration kTick = absl::Milliseconds(100);
// One handshake waits so long for a teacher that is away.
constexpr absl::Duration kHandshakeTimeout = absl::Seconds(5);

// What asking this teacher again will not change.
bool IsFinal(absl::StatusCode code) {
  return code == absl::StatusCode::kInvalidArgument ||
         code == absl::StatusCode::kFailedPrecondition ||
         code == absl::StatusCode::kNotFound ||
         code == absl::StatusCode::kUnimplemented;
}

absl::StatusOr<TeacherReply> ToReply(const std::string& model, size_t length,
                                     const v1::ScoreReply& reply) {
  if (reply.items_size() != 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "teacher: items: found ", reply.items_size(), ", expected 1"));
  }
  const v1::ScoreItemReply& item = reply.items(0);
  if (item.code() != 0) {
    return absl::Status(static_cast<absl::StatusCode>(item.code()),
                        item.message());
  }
  if (static_cast<size_t>(item.logprobs_size()) != length) {
    return absl::InvalidArgumentError(
        absl::StrCat("teacher: logprobs: found ", item.logprobs_size(),
                     " values, expected ", length));
  }
  return TeacherReply{
      .model = model,
      .weights_hash = reply.weights_hash(),
      .temperature = reply.temperature(),
      .logprobs = {item.logprobs().begin(), item.logprobs().end()},
      .entropy = {item.entropy().begin(), item.entropy().end()}};
}

}  // namespace

std::string KnownWeights::Learn(const std::string& model,
                                const std::string& hash) {
  absl::MutexLock lock(&mutex_);
  return hashes_.emplace(model, hash).first->second;
}

TeacherClient::Load TeacherClient::load() const {
  absl::MutexLock lock(&mutex_);
  return {stream_ != nullptr, pending_.size()};
}

TeacherClient::TeacherClient(std::shared_ptr<grpc::Channel> channel,
                             Options options)
    : stub_(v1::TeacherService::NewStub(std::move(channel))),
      options_(std::move(options)),
      known_weights_(options_.known_weights != nullptr
                         ? options_.known_weights
                         : std::make_shared<KnownWeights>()),
      thread_([this] { Run(); }) {}

TeacherClient::~TeacherClient() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    if (handshake_ != nullptr) handshake_->TryCancel();
  }
  thread_.join();
  FailOverdue(absl::InfiniteFuture(),
              absl::CancelledError("the teacher client stops"));
}

void TeacherClient::Score(
    TeacherRequest request,
    std::function<void(absl::StatusOr<TeacherReply>)> done) {
  Pending pending;
  pending.done = std::move(done);
  pending.request.set_model(std::move(request.model));
  pending.request.set_temperature(request.temperature);
  v1::ScoreItem& item = *pending.request.add_items();
  item.mutable_tokens()->Add(request.tokens.begin(), request.tokens.end());
  item.set_affinity_key(request.session);
  v1::TokenSpan& span = *item.add_spans();
  span.set_begin(request.begin);
  span.set_length(request.length);
  pending.deadline = absl::Now() + options_.timeout;
  pending.not_before = absl::InfinitePast();

  absl::MutexLock lock(&mutex_);
  const uint64_t id = next_id_++;
  pending.request.set_request_id(id);
  Pending& kept = pending_.emplace(id, std::move(pending)).first->second;
  if (stream_ != nullptr) Send(kept);
}

void TeacherClient::Send(Pending& pending) {
  pending.request.set_expected_weights_hash(weights_[pending.request.model()]);
  pending.sent = true;
  stream_->Send(pending.request);
}

void TeacherClient::SendDue() {
  const absl::Time now = absl::Now();
  for (auto& [id, pending] : pending_) {
    if (!pending.sent && pending.not_before <= now) Send(pending);
  }
}

void TeacherClient::FailOverdue(absl::Time now, const absl::Status& status) {
  std::vector<Done> overdue;
  {
    absl::MutexLock lock(&mutex_);
    for (auto it = pending_.begin(); it != pending_.end();) {
      if (it->second.deadline > now) {
        ++it;
        continue;
      }
      overdue.push_back(std::move(it->second.done));
      it = pending_.erase(it);
    }
  }
  for (Done& done : overdue) done(status);
}

void TeacherClient::Run() {
  absl::Duration wait = options_.retry_min;
  while (true) {
    absl::Status status = Handshake();
    if (status.ok()) {
      wait = options_.retry_min;
      status = Serve();
    }
    {
      absl::MutexLock lock(&mutex_);
      if (stopping_) return;
    }
    if (absl::IsFailedPrecondition(status)) {
      spdlog::error("teacher refused: {}", status.ToString());
      if (options_.on_refused) options_.on_refused(status);
      FailOverdue(absl::InfiniteFuture(), status);
    } else {
      spdlog::warn("teacher: will connect again: {}", status.ToString());
      if (!options_.lone)
        FailOverdue(absl::InfiniteFuture(),
                    absl::UnavailableError(
                        absl::StrCat("teacher: ", status.message())));
    }
    FailOverdue(absl::Now(), absl::DeadlineExceededError(
                                 absl::StrCat("teacher: ", status.message())));
    absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithTimeout(absl::Condition(this, &TeacherClient::Stopping),
                            wait);
    wait = std::min(2 * wait, options_.retry_max);
  }
}

absl::Status TeacherClient::Handshake() {
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  rpc::SetTimeout(context, kHandshakeTimeout);
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return absl::CancelledError("stopping");
    handshake_ = &context;
  }
  v1::ListModelsReply reply;
  const grpc::Status called =
      stub_->ListModels(&context, v1::ListModelsRequest(), &reply);
  absl::MutexLock lock(&mutex_);
  handshake_ = nullptr;
  return called.ok() ? CheckModels(reply) : rpc::FromGrpc(called);
}

absl::Status TeacherClient::CheckModels(const v1::ListModelsReply& reply) {
  if (reply.models().empty()) {
    return absl::UnavailableError("the teacher has no model");
  }
  for (const v1::ModelInfo& model : reply.models()) {
    if (model.tokenizer_hash() != options_.tokenizer_hash) {
      return absl::FailedPreconditionError(absl::StrCat(
          "tokenizer of teacher ", model.name(), ": ",
          HashDifference(model.tokenizer_hash(), options_.tokenizer_hash),
          ", the student's"));
    }
    if (model.vocab_size() < options_.vocab_size) {
      return absl::FailedPreconditionError(
          absl::StrCat("vocab_size of teacher ", model.name(), ": found ",
                       model.vocab_size(), ", expected at least the student's ",
                       options_.vocab_size));
    }
    const std::string known =
        known_weights_->Learn(model.name(), model.weights_hash());
    weights_[model.name()] = known;
    if (model.weights_hash() != known) {
      return absl::FailedPreconditionError(absl::StrCat(
          "weights of teacher ", model.name(), ": found ", model.weights_hash(),
          ", expected ", known, " as before"));
    }
  }
  return absl::OkStatus();
}

absl::Status TeacherClient::Serve() {
  {
    absl::MutexLock lock(&mutex_);
    ended_ = false;
  }
  Stream stream(
      [this](grpc::ClientContext* context, Stream::Reactor* reactor) {
        stub_->async()->ScoreStream(context, reactor);
      },
      [this](v1::ScoreReply& reply) { OnReply(reply); },
      [this](const absl::Status& status) {
        absl::MutexLock lock(&mutex_);
        ended_ = true;
        end_ = status;
      });
  {
    absl::MutexLock lock(&mutex_);
    stream_ = &stream;
    for (auto& [id, pending] : pending_) pending.sent = false;
  }
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      SendDue();
      mutex_.AwaitWithTimeout(
          absl::Condition(this, &TeacherClient::StoppingOrEnded), kTick);
      if (StoppingOrEnded()) {
        stream_ = nullptr;
        return end_;
      }
    }
    FailOverdue(absl::Now(),
                absl::DeadlineExceededError("teacher: no answer in time"));
  }
}

void TeacherClient::OnReply(v1::ScoreReply& reply) {
  absl::StatusOr<TeacherReply> result = absl::UnavailableError("no reply");
  Done done;
  {
    absl::MutexLock lock(&mutex_);
    const auto it = pending_.find(reply.request_id());
    if (it == pending_.end()) return;  // over time, or unknown
    Pending& pending = it->second;
    const auto code = static_cast<absl::StatusCode>(reply.code());
    if (!absl::Status(code, "").ok() && !IsFinal(code)) {
      // Full queue, failed batch: the same again, later.
      pending.sent = false;
      pending.not_before = absl::Now() + options_.retry_max;
      return;
    }
    if (reply.code() != 0) {
      result = absl::Status(code, absl::StrCat("teacher: ", reply.message()));
    } else {
      result = ToReply(pending.request.model(),
                       pending.request.items(0).spans(0).length(), reply);
    }
    done = std::move(pending.done);
    pending_.erase(it);
  }
  done(std::move(result));
}

}  // namespace atod::teacher

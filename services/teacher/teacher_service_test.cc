#include "services/teacher/teacher_service.h"

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/base/queue.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "gmock/gmock.h"
#include "grpcpp/client_context.h"
#include "gtest/gtest.h"
#include "services/teacher/fake_scorer.h"
#include "services/teacher/teacher_client.h"
#include "services/teacher/teacher_pool.h"

namespace atod::teacher {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

v1::ModelInfo Info(const std::string& tokenizer = "tok",
                   const std::string& weights = "w1") {
  v1::ModelInfo info;
  info.set_name("big");
  info.set_tokenizer_hash(tokenizer);
  info.set_weights_hash(weights);
  info.set_vocab_size(1000);
  info.set_max_context(64);
  return info;
}

// A teacher server in this process that can die and come back.
class Teacher {
 public:
  explicit Teacher(v1::ModelInfo info = Info()) { Start(std::move(info)); }
  ~Teacher() { Kill(); }

  // Beside `info`, a model of the same scorer by another name.
  void Serve(const std::string& name) { second_ = name; }
  void Start(v1::ModelInfo info, Batcher::Options options = {}) {
    registry_ = std::make_unique<metrics::Registry>();
    batcher_ = std::make_unique<Batcher>(std::make_unique<FakeScorer>(state),
                                         options, *registry_);
    std::vector<TeacherServiceImpl::Model> models = {{info, batcher_.get()}};
    if (!second_.empty()) {
      info.set_name(second_);
      info.set_weights_hash("of " + second_);
      models.push_back({info, batcher_.get()});
    }
    service_ = std::make_unique<TeacherServiceImpl>(
        models,
        TeacherServiceImpl::Options{
            .max_items = 100, .max_tokens = 1000, .stream_requests = 4},
        *registry_);
    auto server = rpc::Listen({.address = absl::StrCat("127.0.0.1:", port_),
                               .services = {service_.get()}});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    port_ = server_->port();
  }
  void Kill() {
    if (!server_) return;
    // Requests under way end with the batcher; the server waits for them.
    std::thread stop([this] { server_->Shutdown(absl::ZeroDuration()); });
    state.OpenGate();
    stop.join();
    server_.reset();
    service_.reset();
    batcher_.reset();
  }
  std::shared_ptr<grpc::Channel> Connect() const {
    return *rpc::Connect(absl::StrCat("127.0.0.1:", port_));
  }

  FakeScorerState state;

 private:
  uint16_t port_ = 0;
  std::string second_;
  std::unique_ptr<metrics::Registry> registry_;
  std::unique_ptr<Batcher> batcher_;
  std::unique_ptr<TeacherServiceImpl> service_;
  std::unique_ptr<rpc::RpcServer> server_;
};

v1::ScoreRequest Request(std::vector<uint32_t> tokens, uint32_t begin,
                         uint32_t length) {
  v1::ScoreRequest request;
  request.set_temperature(1);
  v1::ScoreItem& item = *request.add_items();
  item.set_item_id(5);
  item.mutable_tokens()->Add(tokens.begin(), tokens.end());
  v1::TokenSpan& span = *item.add_spans();
  span.set_begin(begin);
  span.set_length(length);
  return request;
}

struct Answer {
  grpc::Status status;
  v1::ScoreReply reply;
};

Answer Score(Teacher& teacher, const v1::ScoreRequest& request) {
  const auto stub = v1::TeacherService::NewStub(teacher.Connect());
  grpc::ClientContext context;
  Answer answer;
  answer.status = stub->Score(&context, request, &answer.reply);
  return answer;
}

TEST(TeacherService, ListsItsModel) {
  Teacher teacher;
  const auto stub = v1::TeacherService::NewStub(teacher.Connect());
  grpc::ClientContext context;
  v1::ListModelsReply reply;
  ASSERT_TRUE(stub->ListModels(&context, {}, &reply).ok());
  ASSERT_EQ(reply.models_size(), 1);
  EXPECT_EQ(reply.models(0).SerializeAsString(), Info().SerializeAsString());
}

TEST(TeacherService, ServesSeveralModelsByName) {
  Teacher teacher;
  teacher.Kill();
  teacher.Serve("small");
  teacher.Start(Info());
  v1::ScoreRequest request = Request({10, 11, 12}, 1, 2);
  const Answer none = Score(teacher, request);
  EXPECT_EQ(none.status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(none.status.error_message(),
            "model: found none, expected one of: big, small");
  request.set_model("small");
  EXPECT_EQ(Score(teacher, request).reply.weights_hash(), "of small");
  request.set_model("big");
  EXPECT_EQ(Score(teacher, request).reply.weights_hash(), "w1");
  request.set_top_k(257);
  EXPECT_EQ(Score(teacher, request).status.error_message(),
            "top_k: found 257, expected at most 256");
  request.set_top_k(0);
  request.mutable_items(0)->set_affinity_key(std::string(257, 'x'));
  EXPECT_THAT(Score(teacher, request).reply.items(0).message(),
              HasSubstr("affinity_key: found 257 bytes"));
}

TEST(TeacherPool, WhatADeadTeacherDidNotAnswerIsAskedOfAnother) {
  Teacher a, b;
  TeacherPool pool({a.Connect(), b.Connect()},
                   {.tokenizer_hash = "tok",
                    .vocab_size = 1000,
                    .retry_min = absl::Milliseconds(1)});
  // As an agent loop does: asks again until there is an answer.
  const auto answered = [&](const std::string& session) {
    while (true) {
      absl::StatusOr<TeacherReply> result;
      absl::Notification done;
      pool.Score({.model = "big",
                  .tokens = {1, 2, 3},
                  .begin = 1,
                  .length = 2,
                  .session = session},
                 [&](absl::StatusOr<TeacherReply> reply) {
                   result = std::move(reply);
                   done.Notify();
                 });
      done.WaitForNotification();
      if (result.ok()) return result->logprobs.size() == 2;
      EXPECT_TRUE(absl::IsUnavailable(result.status())) << result.status();
    }
  };
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(answered(absl::StrCat(i)));
  a.Kill();
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(answered(absl::StrCat(i % 10)));
  EXPECT_TRUE(answered(""));
  b.Kill();
  a.Start(Info());
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(answered(absl::StrCat(i)));
}

TEST(TeacherPool, TeachersOfDifferentWeightsAreRefused) {
  Teacher a, b(Info("tok", "w2"));
  absl::Notification refused;
  absl::Status why;
  TeacherPool pool({a.Connect(), b.Connect()},
                   {.tokenizer_hash = "tok",
                    .vocab_size = 1000,
                    .on_refused = [&](const absl::Status& status) {
                      if (refused.HasBeenNotified()) return;
                      why = status;
                      refused.Notify();
                    }});
  refused.WaitForNotification();
  EXPECT_THAT(why.message(), HasSubstr("weights of teacher big: found w"));
}

TEST(TeacherService, ScoresTheSpansOfAnItem) {
  Teacher teacher;
  v1::ScoreRequest request = Request({10, 11, 12, 13, 14}, 1, 1);
  request.set_request_id(77);
  request.set_temperature(0.5);
  request.set_want_entropy(true);
  v1::TokenSpan& second = *request.mutable_items(0)->add_spans();
  second.set_begin(3);
  second.set_length(2);
  const Answer answer = Score(teacher, request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.reply.request_id(), 77);
  EXPECT_EQ(answer.reply.weights_hash(), "w1");
  EXPECT_EQ(answer.reply.temperature(), 0.5);
  EXPECT_EQ(answer.reply.tokens(), 5);
  ASSERT_EQ(answer.reply.items_size(), 1);
  EXPECT_EQ(answer.reply.items(0).item_id(), 5);
  EXPECT_THAT(answer.reply.items(0).logprobs(),
              ElementsAre(FakeScorerState::LogProb(11, 1, 0.5),
                          FakeScorerState::LogProb(13, 3, 0.5),
                          FakeScorerState::LogProb(14, 4, 0.5)));
  EXPECT_THAT(answer.reply.items(0).entropy(), ElementsAre(1, 3, 4));
}

TEST(TeacherService, BadItemFailsAlone) {
  Teacher teacher;
  v1::ScoreRequest request = Request({1, 2, 3}, 1, 2);
  const auto add = [&](v1::ScoreRequest other) {
    v1::ScoreItem& item = *request.add_items();
    item = other.items(0);
    item.set_item_id(100 + request.items_size());
  };
  add(Request({1, 2, 1000}, 1, 2));           // token out of range
  add(Request({1, 2, 4'000'000'000}, 1, 2));  // not even an int32
  add(Request({1, 2, 3}, 0, 2));              // nothing before the first token
  add(Request({1, 2, 3}, 2, 2));              // past the end
  add(Request({1, 2, 3}, 4'294'967'295, 4'294'967'295));
  add(Request({1, 2, 3}, 1, 0));
  add(Request(std::vector<uint32_t>(65, 1), 1, 1));  // over the context
  add(Request({}, 1, 1));
  const Answer answer = Score(teacher, request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  ASSERT_EQ(answer.reply.items_size(), request.items_size());
  EXPECT_EQ(answer.reply.items(0).code(), 0);
  EXPECT_EQ(answer.reply.items(0).logprobs_size(), 2);
  for (int i = 1; i < request.items_size(); ++i) {
    EXPECT_EQ(answer.reply.items(i).code(), grpc::INVALID_ARGUMENT) << i;
    EXPECT_THAT(answer.reply.items(i).message(), HasSubstr("found")) << i;
    EXPECT_THAT(answer.reply.items(i).logprobs(), IsEmpty());
  }
}

TEST(TeacherService, RefusesRequestsThatMakeNoSense) {
  Teacher teacher;
  const auto code = [&](auto&& change) {
    v1::ScoreRequest request = Request({1, 2, 3}, 1, 2);
    change(request);
    return Score(teacher, request).status.error_code();
  };
  EXPECT_EQ(code([](auto&) {}), grpc::OK);
  EXPECT_EQ(code([](auto& r) { r.set_model("other"); }), grpc::NOT_FOUND);
  EXPECT_EQ(code([](auto& r) { r.set_expected_weights_hash("w2"); }),
            grpc::FAILED_PRECONDITION);
  EXPECT_EQ(code([](auto& r) { r.set_expected_tokenizer_hash("x"); }),
            grpc::FAILED_PRECONDITION);
  EXPECT_EQ(code([](auto& r) { r.set_temperature(0); }),
            grpc::INVALID_ARGUMENT);
  EXPECT_EQ(code([](auto& r) { r.set_temperature(NAN); }),
            grpc::INVALID_ARGUMENT);
  EXPECT_EQ(code([](auto& r) { r.clear_items(); }), grpc::INVALID_ARGUMENT);
  EXPECT_EQ(code([](auto& r) { *r.add_items() = r.items(0); }),
            grpc::INVALID_ARGUMENT);
  EXPECT_EQ(code([](auto& r) {
              for (int i = 0; i < 200; ++i) r.add_items()->set_item_id(i + 9);
            }),
            grpc::INVALID_ARGUMENT);
  EXPECT_EQ(code([](auto& r) {
              r.mutable_items(0)->mutable_tokens()->Resize(1001, 1);
            }),
            grpc::INVALID_ARGUMENT);
}

TEST(TeacherService, WrongNumberOfLogProbsIsAnErrorNotATruncation) {
  Teacher teacher;
  teacher.state.set_short_by(1);
  const Answer answer = Score(teacher, Request({1, 2, 3}, 1, 2));
  ASSERT_TRUE(answer.status.ok());
  EXPECT_EQ(answer.reply.items(0).code(), grpc::INTERNAL);
  EXPECT_THAT(answer.reply.items(0).message(), HasSubstr("found 1"));
}

TEST(TeacherService, StreamAnswersEveryRequestByItsId) {
  Teacher teacher;
  const auto stub = v1::TeacherService::NewStub(teacher.Connect());
  grpc::ClientContext context;
  const auto stream = stub->ScoreStream(&context);
  constexpr uint32_t kRequests = 50;  // many times what may be in flight
  std::thread writer([&] {
    for (uint32_t i = 0; i < kRequests; ++i) {
      v1::ScoreRequest request = Request({1, i + 2}, 1, 1);
      request.set_request_id(i);
      if (i % 10 == 3) request.set_temperature(-1);
      EXPECT_TRUE(stream->Write(request));
    }
    stream->WritesDone();
  });
  std::vector<int> seen(kRequests);
  v1::ScoreReply reply;
  while (stream->Read(&reply)) {
    const uint32_t i = reply.request_id();
    ASSERT_LT(i, kRequests);
    ++seen[i];
    if (i % 10 == 3) {
      EXPECT_EQ(reply.code(), grpc::INVALID_ARGUMENT);
    } else {
      EXPECT_EQ(reply.code(), 0);
      EXPECT_THAT(reply.items(0).logprobs(),
                  ElementsAre(FakeScorerState::LogProb(i + 2, 1, 1)));
    }
  }
  writer.join();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_THAT(seen, ::testing::Each(1));
}

class TeacherClientTest : public ::testing::Test {
 protected:
  void Connect(const std::string& tokenizer = "tok",
               absl::Duration timeout = absl::Seconds(60),
               uint32_t vocab_size = 0) {
    client_ = std::make_unique<TeacherClient>(
        teacher_.Connect(),
        TeacherClient::Options{
            .tokenizer_hash = tokenizer,
            .vocab_size = vocab_size,
            .timeout = timeout,
            .retry_min = absl::Milliseconds(1),
            .retry_max = absl::Milliseconds(20),
            .on_refused = [this](const absl::Status& status) {
              refused_.Push(std::string(status.message()));
            }});
  }
  void Ask(int32_t token, const std::string& model = "big") {
    client_->Score({.model = model,
                    .tokens = {1, 2, token},
                    .begin = 2,
                    .length = 1,
                    .temperature = 1},
                   [this](auto reply) { replies_.Push(std::move(reply)); });
  }

  Teacher teacher_;
  Queue<absl::StatusOr<TeacherReply>> replies_;
  Queue<std::string> refused_;
  std::unique_ptr<TeacherClient> client_;
};

TEST_F(TeacherClientTest, ScoresATurn) {
  Connect();
  Ask(9);
  const auto reply = *replies_.Pop();
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->model, "big");
  EXPECT_EQ(reply->weights_hash, "w1");
  EXPECT_EQ(reply->temperature, 1);
  EXPECT_THAT(reply->logprobs, ElementsAre(FakeScorerState::LogProb(9, 2, 1)));
}

TEST_F(TeacherClientTest, RefusesATeacherWithAnotherTokenizer) {
  Connect("another");
  Ask(9);
  EXPECT_THAT(*refused_.Pop(),
              HasSubstr("tokenizer of teacher big: hash: found tok, expected "
                        "another, the student's"));
  EXPECT_EQ(replies_.Pop()->status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(TeacherClientTest, RefusesATeacherWithFewerRowsThanTheStudentHas) {
  Connect("tok", absl::Seconds(60), Info().vocab_size() + 1);
  EXPECT_THAT(*refused_.Pop(), HasSubstr("vocab_size of teacher big: found "));
}

TEST_F(TeacherClientTest, UnknownModelIsFinal) {
  Connect();
  Ask(9, "small");
  EXPECT_EQ(replies_.Pop()->status().code(), absl::StatusCode::kNotFound);
}

TEST_F(TeacherClientTest, DeadTeacherCostsNoRequest) {
  Connect();
  teacher_.state.CloseGate();
  for (int i = 0; i < 20; ++i) Ask(i);
  teacher_.state.AwaitBatches(1);
  teacher_.Kill();
  for (int i = 20; i < 30; ++i) Ask(i);
  teacher_.Start(Info());
  std::vector<bool> seen(30);
  for (int i = 0; i < 30; ++i) {
    const auto reply = *replies_.Pop();
    ASSERT_TRUE(reply.ok()) << reply.status();
    seen[static_cast<size_t>(-reply->logprobs[0])] = true;
  }
  EXPECT_THAT(seen, ::testing::Each(true));
  EXPECT_EQ(replies_.size(), 0);
}

TEST_F(TeacherClientTest, TeacherThatCameBackWithOtherWeightsIsRefused) {
  Connect();
  Ask(1);
  EXPECT_TRUE(replies_.Pop()->ok());
  teacher_.Kill();
  teacher_.Start(Info("tok", "w2"));
  EXPECT_THAT(*refused_.Pop(),
              HasSubstr("weights of teacher big: found w2, expected w1"));
}

TEST_F(TeacherClientTest, FailedBatchIsAskedAgainUntilTheTimeout) {
  Connect("tok", absl::Milliseconds(300));
  Ask(FakeScorerState::kPoison);
  EXPECT_EQ(replies_.Pop()->status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_GT(teacher_.state.batches().size(), 1);
}

TEST_F(TeacherClientTest, StopsWhileTheTeacherIsAway) {
  teacher_.Kill();
  Connect();
  Ask(1);
  client_.reset();
  EXPECT_EQ(replies_.Pop()->status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace atod::teacher

// atod-teacher: scores token ids with a frozen model.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/config/config.h"
#include "common/config/program_args.h"
#include "common/metrics/metrics.h"
#include "common/model/model_config.h"
#include "common/model/threads.h"
#include "common/rpc/address.h"
#include "common/rpc/server.h"
#include "common/rpc/signal.h"
#include "common/tokenizer/tokenizer.h"
#include "services/teacher/batcher.h"
#include "services/teacher/scorer.h"
#include "services/teacher/teacher_service.h"

namespace atod::teacher {
namespace {

// Requests under way are answered; streams of workers end after it.
constexpr absl::Duration kDrain = absl::Seconds(1);

struct Opened {
  v1::ModelInfo info;
  std::unique_ptr<Scorer> scorer;
};

absl::StatusOr<Opened> Open(const v1::RunConfig& config, int i) {
  const v1::TeacherConfig& teacher = config.teachers(i);
  if (teacher.path().empty()) {
    return BadInput({.file = "",
                     .field = absl::StrCat("teachers.", i, ".path"),
                     .line = 0,
                     .found = "nothing",
                     .expected = "the folder of a model"});
  }
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                        Tokenizer::Load(teacher.path()));
  ATOD_ASSIGN_OR_RETURN(
      LoadedScorer loaded,
      MakeScorer(teacher.path(), {.dtype = config.model().dtype(),
                                  .device = config.device(),
                                  .deterministic = config.deterministic(),
                                  .max_context = config.model().max_context(),
                                  .kv_tokens = static_cast<int64_t>(
                                      config::TeacherKvTokens(config, i))}));
  Opened out;
  v1::ModelInfo& info = out.info;
  info.set_name(teacher.name());
  info.set_arch_hash(model::ArchHash(loaded.config));
  info.set_tokenizer_hash(tokenizer->hash());
  info.set_template_hash(tokenizer->template_hash());
  info.set_weights_hash(loaded.weights_hash);
  info.set_vocab_size(static_cast<uint32_t>(loaded.config.vocab_size));
  info.set_dtype(loaded.back_end.dtype);
  info.set_max_context(loaded.max_context);
  info.set_device(loaded.back_end.device);
  info.set_back_end(loaded.back_end.name);
  spdlog::info("model {}: back end {}, device {}, dtype {}", info.name(),
               info.back_end(), info.device(), info.dtype());
  if (const uint64_t kept = config::TeacherKvTokens(config, i); kept > 0)
    spdlog::info("model {}: keeps keys and values of {} tokens of episodes",
                 info.name(), kept);
  out.scorer = std::move(loaded.scorer);
  return out;
}

absl::Status Serve(const config::ProgramArgs& args,
                   rpc::ShutdownSignals& signals) {
  signals.EndAtOnce(true);
  const v1::RunConfig& config = args.loaded.config;
  if (config.teachers().empty()) {
    return BadInput({.file = "",
                     .field = "teachers.0.path",
                     .line = 0,
                     .found = "nothing",
                     .expected = "the folder of a model"});
  }
  ATOD_ASSIGN_OR_RETURN(
      const std::string listen,
      rpc::ListenAddressAt(config.rpc().bind(), config.rpc().teacher(),
                           args.index, "rpc.teacher"));
  model::SetComputeThreads(config.threads().teacher());
  std::vector<Opened> opened;
  for (int i = 0; i < config.teachers_size(); ++i) {
    ATOD_ASSIGN_OR_RETURN(opened.emplace_back(), Open(config, i));
  }
  if (args.dry_run) return absl::OkStatus();

  metrics::Registry registry;
  std::vector<std::unique_ptr<Batcher>> batchers;
  std::vector<TeacherServiceImpl::Model> models;
  for (Opened& o : opened) {
    metrics::SetModelInfo(registry, "teacher", o.info.name(), o.info.back_end(),
                          o.info.device(), o.info.dtype());
    batchers.push_back(std::make_unique<Batcher>(std::move(o.scorer),
                                                 Batcher::Options(), registry));
    models.push_back({o.info, batchers.back().get()});
  }
  TeacherServiceImpl service(models, {}, registry);
  const uint32_t port = config.metrics().teacher_port();
  ATOD_ASSIGN_OR_RETURN(
      const std::unique_ptr<metrics::MetricsServer> metrics_server,
      metrics::MetricsServer::Start(
          config.rpc().bind(),
          static_cast<uint16_t>(port == 0 ? 0 : port + args.index), registry));
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<rpc::RpcServer> server,
                        rpc::Listen({.address = listen,
                                     .services = {&service},
                                     .security = rpc::Security(config.rpc())}));
  for (const Opened& o : opened)
    spdlog::info("serving {} ({}) on {}", o.info.name(), o.info.weights_hash(),
                 server->address());
  signals.EndAtOnce(false);
  signals.Wait();
  server->SetServing(false);
  server->Shutdown(kDrain);
  return absl::OkStatus();
}

}  // namespace
}  // namespace atod::teacher

int main(int argc, char** argv) {
  atod::rpc::ShutdownSignals signals;
  atod::InitLogging("teacher");
  const atod::config::ProgramStart start = atod::config::ParseProgramArgs(
      "atod-teacher", "Score tokens with a frozen model", argc, argv);
  if (!start.args.has_value()) return start.exit_status;
  return atod::config::ExitStatus(atod::teacher::Serve(*start.args, signals));
}

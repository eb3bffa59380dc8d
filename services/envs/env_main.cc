// atod-envs: environments as a service.
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/base/warn.h"
#include "common/config/program_args.h"
#include "common/metrics/metrics.h"
#include "common/rpc/address.h"
#include "common/rpc/server.h"
#include "common/rpc/signal.h"
#include "services/envs/env_metrics.h"
#include "services/envs/env_service.h"
#include "services/envs/episode_table.h"
#include "services/envs/open_environment.h"

namespace atod::envs {
namespace {

constexpr absl::Duration kDrain = absl::Seconds(10);

absl::Status Serve(const config::ProgramArgs& args,
                   rpc::ShutdownSignals& signals) {
  signals.EndAtOnce(true);
  const v1::RunConfig& config = args.loaded.config;
  ATOD_ASSIGN_OR_RETURN(
      const std::string listen,
      rpc::ListenAddressAt(config.rpc().bind(), config.rpc().envs(), args.index,
                           "rpc.envs"));
  ATOD_ASSIGN_OR_RETURN(std::shared_ptr<const Environment> env,
                        OpenEnvironment(config.env()));
  const std::string left_out = LeftOutText(env->description(), "");
  if (!left_out.empty())
    LogWarning(absl::StrCat(config.env().data(), ": ", left_out,
                            " (`atod games check` names all)"));
  for (const SplitInfo& split : env->description().splits)
    spdlog::info("{}: split {} with {} tasks, hash {}", config.env().name(),
                 split.name, split.size, split.content_hash);
  if (args.dry_run) return absl::OkStatus();

  metrics::Registry registry;
  EnvMetrics env_metrics(registry);
  RealClock clock;
  EpisodeTable table({{config.env().name(), env}},
                     absl::Seconds(config.env().lease_seconds()), &clock,
                     &env_metrics);
  EnvServiceImpl service(table, &env_metrics);
  const uint32_t port = config.metrics().envs_port();
  ATOD_ASSIGN_OR_RETURN(
      const std::unique_ptr<metrics::MetricsServer> metrics_server,
      metrics::MetricsServer::Start(
          config.rpc().bind(),
          static_cast<uint16_t>(port == 0 ? 0 : port + args.index), registry));
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<rpc::RpcServer> server,
                        rpc::Listen({.address = listen,
                                     .services = {&service},
                                     .security = rpc::Security(config.rpc())}));
  spdlog::info("serving {} on {}", config.env().name(), server->address());
  signals.EndAtOnce(false);
  signals.Wait();
  service.EndSessions();
  server->Shutdown(kDrain);
  return absl::OkStatus();
}

}  // namespace
}  // namespace atod::envs

int main(int argc, char** argv) {
  atod::rpc::ShutdownSignals signals;
  atod::InitLogging("envs");
  const atod::config::ProgramStart start = atod::config::ParseProgramArgs(
      "atod-envs", "Serve environments", argc, argv);
  if (!start.args.has_value()) return start.exit_status;
  return atod::config::ExitStatus(atod::envs::Serve(*start.args, signals));
}

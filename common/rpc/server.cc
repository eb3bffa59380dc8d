#include "common/rpc/server.h"

#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/base/status_macros.h"
#include "common/rpc/address.h"
#include "common/rpc/channel.h"
#include "grpc/support/log.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/server_builder.h"

namespace atod::rpc {
namespace {

// gRPC's own log lines go through ours; what matters of them also comes back
// as a status, so they are debugging text.
void LogFromGrpc(gpr_log_func_args* args) {
  spdlog::debug("grpc: {}", args->message);
}

// gRPC 1.51 aborts now and then when the last user of its callback queue goes
// away (grpc_cq_internal_unref in the queue's thread). A server that listens
// nowhere and is never destroyed keeps the queue alive.
void KeepCallbackQueue() {
  grpc::ServerBuilder builder;
  builder.RegisterCallbackGenericService(new grpc::CallbackGenericService);
  builder.BuildAndStart().release();
}

void InitGrpcOnce() {
  static std::once_flag once;
  std::call_once(once, [] {
    gpr_set_log_function(LogFromGrpc);
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    KeepCallbackQueue();
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<RpcServer>> Listen(
    const ServerOptions& options) {
  ATOD_ASSIGN_OR_RETURN(Address address,
                        ParseAddress(options.address, "listen address"));
  ATOD_RETURN_IF_ERROR(options.security.CheckHost(address.host, "rpc.bind"));
  InitGrpcOnce();
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(address.ToString(), options.security.server(),
                           &port);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  // Two servers on one port would share its calls at random.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Let clients ping as Connect() does.
  builder.AddChannelArgument(
      GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  for (grpc::Service* service : options.services) {
    builder.RegisterService(service);
  }
  if (options.generic != nullptr) {
    builder.RegisterCallbackGenericService(options.generic);
  }
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    return absl::AlreadyExistsError(absl::StrCat(
        options.address, ": cannot listen, found the port in use or the ",
        "interface absent, expected a free port"));
  }
  address.port = port;
  std::unique_ptr<RpcServer> out(
      new RpcServer(std::move(server), address.ToString(), port));
  if (!options.serving) out->SetServing(false);
  return out;
}

RpcServer::RpcServer(std::unique_ptr<grpc::Server> server, std::string address,
                     uint16_t port)
    : address_(std::move(address)), port_(port), server_(std::move(server)) {}

RpcServer::~RpcServer() { Shutdown(absl::ZeroDuration()); }

void RpcServer::SetServing(bool serving) {
  server_->GetHealthCheckService()->SetServingStatus(serving);
}

void RpcServer::Shutdown(absl::Duration grace) {
  server_->GetHealthCheckService()->Shutdown();
  server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
}

}  // namespace atod::rpc

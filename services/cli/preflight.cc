#include "services/cli/preflight.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/rpc/address.h"
#include "services/learner/algorithm_options.h"

namespace atod::cli {
namespace {

// Whether somebody listens on the port of any IPv4 interface.
bool PortTaken(uint32_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_in any{};
  any.sin_family = AF_INET;
  any.sin_port = htons(static_cast<uint16_t>(port));
  const bool taken =
      bind(fd, reinterpret_cast<const sockaddr*>(&any), sizeof(any)) != 0 &&
      errno == EADDRINUSE;
  close(fd);
  return taken;
}

}  // namespace

absl::Status CheckInputs(const v1::RunConfig& c) {
  std::vector<std::pair<std::string, std::string>> needed = {
      {"model.path", c.model().path()},
      {"env.data", c.env().data()},
      {"env.data, split " + c.env().train_split(),
       c.env().data() + "/" + c.env().train_split()}};
  for (int i = 0; i < c.teachers_size(); ++i)
    needed.emplace_back(absl::StrCat("teachers.", i, ".path"),
                        c.teachers(i).path());
  for (const auto& [field, path] : needed)
    if (!std::filesystem::is_directory(path))
      return BadInput({"", field, 0, path.empty() ? "nothing" : path,
                       "an existing folder"});
  return learner::CheckRecipeInputs(c);
}

// Two runs on one machine is the common mistake; services alone would be
// started again and again.
absl::Status CheckPorts(const v1::RunConfig& c, bool learner_only) {
  std::vector<std::pair<std::string, uint32_t>> ports = {
      {"metrics.learner_port", c.metrics().learner_port()}};
  const auto add = [&](const std::string& field,
                       const std::string& text) -> absl::Status {
    ATOD_ASSIGN_OR_RETURN(const std::vector<rpc::Address> addresses,
                          rpc::ParseAddresses(text, field));
    for (const rpc::Address& a : addresses) ports.emplace_back(field, a.port);
    return absl::OkStatus();
  };
  ATOD_RETURN_IF_ERROR(add("rpc.learner", c.rpc().learner()));
  if (!learner_only) {
    ATOD_RETURN_IF_ERROR(add("rpc.envs", c.rpc().envs()));
    ports.emplace_back("metrics.envs_port", c.metrics().envs_port());
    ports.emplace_back("metrics.rollout_port", c.metrics().rollout_port());
    if (!c.teachers().empty()) {
      ATOD_RETURN_IF_ERROR(add("rpc.teacher", c.rpc().teacher()));
      ports.emplace_back("metrics.teacher_port", c.metrics().teacher_port());
    }
  }
  for (const auto& [field, port] : ports) {
    if (port != 0 && PortTaken(port))
      return BadInput({"", field, 0, absl::StrCat("port ", port, " in use"),
                       "a free port: is another run going on?"});
  }
  return absl::OkStatus();
}

}  // namespace atod::cli

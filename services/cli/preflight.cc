#include "services/cli/preflight.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/base/warn.h"
#include "common/metrics/metrics.h"
#include "common/model/exact/exact_obstacle.h"
#include "common/model/model_folder.h"
#include "common/prompt/render.h"
#include "common/rpc/channel.h"
#include "common/tokenizer/difference.h"
#include "common/tokenizer/tokenizer.h"
#include "services/envs/open_environment.h"
#include "services/learner/recipe_of.h"
#include "services/learner/skill_bank.h"
#include "services/learner/stored_episodes.h"
#include "services/rollout/engine_options.h"

namespace atod::cli {
namespace {

// Games whose first prompts are rendered.
constexpr uint32_t kGamesTried = 8;

// Who listens on `port` of rpc.bind, by key.
struct Listener {
  std::string field;
  uint32_t port = 0;
};

// Names the place that `field`, or the list it stands in, was set.
absl::Status Refuse(const config::LoadedConfig& loaded,
                    const std::string& field, const std::string& found,
                    const std::string& expected) {
  const auto source = loaded.sources.find(field);
  const bool known =
      source != loaded.sources.end() && source->second != "default";
  return BadInput({.file = known ? source->second : "",
                   .field = field,
                   .found = found,
                   .expected = expected});
}

absl::Status AddService(const config::LoadedConfig& loaded,
                        const std::string& field, const std::string& text,
                        std::vector<Listener>& out) {
  std::vector<rpc::Address> addresses(1);
  if (field != "rpc.learner") {  // the others may name several
    ATOD_ASSIGN_OR_RETURN(addresses, rpc::ParseAddresses(text, field));
  } else {
    ATOD_ASSIGN_OR_RETURN(addresses[0], rpc::ParseAddress(text, field));
  }
  for (const rpc::Address& a : addresses) {
    ATOD_RETURN_IF_ERROR(
        rpc::CheckPeer(a, rpc::Security(loaded.config.rpc()), field));
    out.push_back({field, a.port});
  }
  return absl::OkStatus();
}

// Of `count` equal processes each takes the port after the one before.
void AddMetrics(const std::string& field, uint32_t port, size_t count,
                std::vector<Listener>& out) {
  for (uint32_t i = 0; port != 0 && i < count; ++i)
    out.push_back({field, port + i});
}

absl::StatusOr<std::vector<Listener>> Listeners(
    const config::LoadedConfig& loaded, bool learner_only) {
  const v1::RunConfig& c = loaded.config;
  std::vector<Listener> out;
  ATOD_RETURN_IF_ERROR(
      AddService(loaded, "rpc.learner", c.rpc().learner(), out));
  AddMetrics("metrics.learner_port", c.metrics().learner_port(), 1, out);
  if (learner_only) return out;
  const size_t before = out.size();
  ATOD_RETURN_IF_ERROR(AddService(loaded, "rpc.envs", c.rpc().envs(), out));
  AddMetrics("metrics.envs_port", c.metrics().envs_port(), out.size() - before,
             out);
  AddMetrics("metrics.rollout_port", c.metrics().rollout_port(),
             c.rollout().workers(), out);
  if (c.teachers().empty()) return out;
  const size_t others = out.size();
  ATOD_RETURN_IF_ERROR(
      AddService(loaded, "rpc.teacher", c.rpc().teacher(), out));
  AddMetrics("metrics.teacher_port", c.metrics().teacher_port(),
             out.size() - others, out);
  return out;
}

// What bind() says to a port of an interface; 0 when it is free. Names are not
// looked up.
int BindError(const std::string& host, uint32_t port) {
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  v4.sin_family = AF_INET;
  v4.sin_port = v6.sin6_port = htons(static_cast<uint16_t>(port));
  v6.sin6_family = AF_INET6;
  const bool is_v6 = inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) == 1;
  if (!is_v6) inet_pton(AF_INET, host.c_str(), &v4.sin_addr);
  const int fd =
      socket(is_v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const int result =
      is_v6 ? bind(fd, reinterpret_cast<const sockaddr*>(&v6), sizeof(v6))
            : bind(fd, reinterpret_cast<const sockaddr*>(&v4), sizeof(v4));
  const int error = result == 0 ? 0 : errno;
  close(fd);
  return error;
}

// A folder; when there is none, how a model of that name is usually had.
absl::Status CheckModelPath(const config::LoadedConfig& loaded,
                            const std::string& field, const std::string& path) {
  if (std::filesystem::is_directory(path)) return absl::OkStatus();
  if (path.empty())
    return Refuse(loaded, field, "nothing", "the folder of a model");
  const bool hub_name = std::count(path.begin(), path.end(), '/') == 1 &&
                        path.front() != '/' && path.front() != '.' &&
                        path.back() != '/';
  return Refuse(
      loaded, field,
      absl::StrCat(std::filesystem::exists(path) ? "a file, " : "no folder ",
                   path),
      absl::StrCat(
          "the folder of a model",
          hub_name ? absl::StrCat("; from the Hugging Face hub: hf download ",
                                  path, " --local-dir ", path)
                   : "; docs/models.md says where models come from"));
}

// A folder can be made where the run's will be: in the nearest one there.
absl::Status CheckRunFolder(const config::LoadedConfig& loaded) {
  namespace fs = std::filesystem;
  const v1::RunConfig& c = loaded.config;
  const auto refuse = [&](const fs::path& path, const std::string& why) {
    return Refuse(loaded, "runs_dir",
                  absl::StrCat(path.string(), " (", why, ")"),
                  "where the folder of a run can be made");
  };
  std::error_code error;
  fs::path there = fs::absolute(fs::path(c.runs_dir()) / c.name());
  while (fs::symlink_status(there, error).type() == fs::file_type::not_found)
    there = there.parent_path();
  if (error) return refuse(there, error.message());
  const fs::path probe = there / absl::StrCat(".probe.", getpid());
  fs::create_directory(probe, error);
  if (error) return refuse(there, error.message());
  fs::remove(probe, error);
  return absl::OkStatus();
}

// A model that the back end of this run can compute.
absl::StatusOr<model::ModelFolder> OpenModel(const v1::RunConfig& c,
                                             const std::string& dir) {
  ATOD_ASSIGN_OR_RETURN(model::ModelFolder folder,
                        model::CheckModelFolder(dir, c.model().max_context()));
  const std::string obstacle =
      c.deterministic()
          ? model::ExactObstacle(folder.config, c.model().dtype(), c.device())
          : "";
  if (!obstacle.empty())
    return absl::FailedPreconditionError(
        absl::StrCat(dir, ": deterministic: found ", obstacle,
                     ", expected what the float32 kernels of the CPU can run; "
                     "deterministic: false runs it within tolerances"));
  return folder;
}

// The student's tokenizer.
absl::StatusOr<std::unique_ptr<Tokenizer>> OpenModels(const v1::RunConfig& c) {
  ATOD_ASSIGN_OR_RETURN(model::ModelFolder student,
                        OpenModel(c, c.model().path()));
  if (!c.algorithm().reference().empty())
    ATOD_RETURN_IF_ERROR(OpenModel(c, c.algorithm().reference()).status());
  for (const v1::TeacherConfig& config : c.teachers()) {
    ATOD_ASSIGN_OR_RETURN(const model::ModelFolder teacher,
                          OpenModel(c, config.path()));
    const std::string difference =
        TokenizerDifference(*teacher.tokenizer, *student.tokenizer);
    if (!difference.empty())
      return absl::InvalidArgumentError(
          absl::StrCat(config.path(), "/tokenizer.json: ", difference,
                       ", as in ", c.model().path()));
  }
  return std::move(student.tokenizer);
}

// The first prompt of one game at least fits, of those tried; when none does,
// every episode would end in an error. `skills` may be null.
absl::Status CheckContext(const config::LoadedConfig& loaded,
                          const envs::Environment& env, uint32_t games,
                          const Tokenizer& tokenizer,
                          const learner::SkillBank* skills) {
  const v1::RunConfig& c = loaded.config;
  const uint32_t response = c.sampling().train().max_tokens();
  const uint32_t tried = std::min(games, kGamesTried);
  size_t shortest = SIZE_MAX;
  absl::Status broken;
  for (uint32_t i = 0; i < tried; ++i) {
    const uint32_t index = static_cast<uint32_t>(uint64_t{i} * games / tried);
    ATOD_ASSIGN_OR_RETURN(const envs::TaskInfo task,
                          env.GetTask(c.env().train_split(), index));
    const absl::StatusOr<std::unique_ptr<envs::Episode>> episode =
        env.Start({.split = c.env().train_split(), .task_id = task.task_id});
    if (!episode.ok()) {
      broken = episode.status();
      continue;
    }
    const envs::Observation& first = (*episode)->observation();
    const PromptInputs inputs = {.task = first.task,
                                 .observation = first.text,
                                 .admissible = first.admissible,
                                 .fields = first.fields,
                                 .history = {}};
    const auto fit = [&](uint32_t limit) {
      const PromptSpec& spec = env.description().prompt;
      absl::StatusOr<FittedPrompt> prompt =
          FitPrompt(spec, inputs, tokenizer, limit);
      if (!prompt.ok() || skills == nullptr) return prompt;
      return FitContextPrompt(spec, inputs, skills->TextFor(task.category),
                              tokenizer, limit);
    };
    if (fit(c.model().max_context() - response).ok()) return absl::OkStatus();
    ATOD_ASSIGN_OR_RETURN(const FittedPrompt whole, fit(UINT32_MAX));
    shortest = std::min(shortest, whole.tokens.size());
  }
  if (shortest == SIZE_MAX) return broken;
  return Refuse(
      loaded, "model.max_context", absl::StrCat(c.model().max_context()),
      absl::StrCat("at least ", shortest + response,
                   ": the shortest first prompt of ", tried, " games has ",
                   shortest, " tokens, sampling.train.max_tokens is ",
                   response));
}

absl::Status OpenGames(const config::LoadedConfig& loaded,
                       const Tokenizer& tokenizer, bool warn) {
  const v1::RunConfig& c = loaded.config;
  ATOD_ASSIGN_OR_RETURN(const std::shared_ptr<const envs::Environment> env,
                        envs::OpenEnvironment(c.env()));
  const std::string left_out = envs::LeftOutText(env->description(), "");
  if (warn && !left_out.empty())
    LogWarning(absl::StrCat(c.env().data(), ": ", left_out));
  ATOD_RETURN_IF_ERROR(rollout::CheckPrompts(c.env(), tokenizer));
  ATOD_RETURN_IF_ERROR(CheckLayout(env->description().prompt, c.layout()));
  std::map<std::string, envs::SplitInfo> splits;
  std::string names;
  for (const envs::SplitInfo& split : env->description().splits) {
    splits[split.name] = split;
    absl::StrAppend(&names, names.empty() ? "" : ", ", split.name);
  }
  const auto need = [&](const std::string& field, const std::string& name) {
    if (splits[name].size > 0) return absl::OkStatus();
    const std::string left = envs::LeftOutText(env->description(), name);
    return Refuse(
        loaded, field,
        absl::StrCat("no games of ", name, left.empty() ? "" : ", ", left),
        absl::StrCat("one of: ", names));
  };
  ATOD_RETURN_IF_ERROR(need("env.train_split", c.env().train_split()));
  if (c.eval().every() > 0) {
    ATOD_RETURN_IF_ERROR(need("eval.split", c.eval().split()));
    const uint32_t size = splits[c.eval().split()].size;
    const bool small = size < c.eval().panel_size();
    if (small && loaded.sources.at("eval.panel_size") != "default")
      return Refuse(loaded, "eval.panel_size",
                    absl::StrCat(c.eval().panel_size()),
                    absl::StrCat("at most ", size, ", the games of split ",
                                 c.eval().split()));
    if (small && warn)
      LogWarning(absl::StrCat("eval.panel_size: found ", c.eval().panel_size(),
                              ", but split ", c.eval().split(), " has ", size,
                              " games"));
  }
  ATOD_ASSIGN_OR_RETURN(const learner::Recipe recipe,
                        learner::RecipeOf(c.algorithm()));
  if (recipe.rollout.mode == learner::RolloutPolicy::Mode::kBackToFront)
    ATOD_RETURN_IF_ERROR(learner::StoredEpisodes::Load(
                             c.env().episodes(), c.env().train_split(),
                             splits[c.env().train_split()].content_hash,
                             c.env().max_turns())
                             .status());
  std::optional<learner::SkillBank> skills;
  if (recipe.needs_context) {
    ATOD_ASSIGN_OR_RETURN(skills, learner::SkillBank::Load(c.env().skills()));
  }
  return CheckContext(loaded, *env, splits[c.env().train_split()].size,
                      tokenizer, skills.has_value() ? &*skills : nullptr);
}

}  // namespace

absl::Status CheckPorts(const config::LoadedConfig& loaded, bool learner_only) {
  const std::string& bind = loaded.config.rpc().bind();
  ATOD_ASSIGN_OR_RETURN(const std::vector<Listener> listeners,
                        Listeners(loaded, learner_only));
  ATOD_RETURN_IF_ERROR(
      rpc::ListenAddress(bind, loaded.config.rpc().learner(), "rpc.learner")
          .status());
  ATOD_RETURN_IF_ERROR(
      rpc::Security(loaded.config.rpc()).CheckHost(bind, "rpc.bind"));
  std::map<uint32_t, std::string> users;
  for (const auto& [field, port] : listeners) {
    if (port > 65535)
      return Refuse(loaded, field, absl::StrCat("port ", port),
                    "65535 at most, that of the last process");
    const auto [user, fresh] = users.emplace(port, field);
    if (!fresh)
      return Refuse(loaded, field,
                    absl::StrCat("port ", port, " again, as ", user->second),
                    "another port for each service");
    const int error = BindError(bind, port);
    if (error == EADDRINUSE)
      return Refuse(loaded, field, absl::StrCat("port ", port, " in use"),
                    "a free port: is another run going on?");
    if (error != 0)
      return Refuse(loaded, "rpc.bind",
                    absl::StrCat(bind, " (", strerror(error), ")"),
                    "an interface of this machine, and ports that you may use");
    if (absl::StartsWith(field, "metrics."))
      ATOD_RETURN_IF_ERROR(metrics::CheckHost(bind));
  }
  return absl::OkStatus();
}

absl::Status CheckInputs(const config::LoadedConfig& loaded) {
  const v1::RunConfig& c = loaded.config;
  ATOD_RETURN_IF_ERROR(CheckModelPath(loaded, "model.path", c.model().path()));
  for (int i = 0; i < c.teachers_size(); ++i)
    ATOD_RETURN_IF_ERROR(CheckModelPath(
        loaded, absl::StrCat("teachers.", i, ".path"), c.teachers(i).path()));
  const std::string& reference = c.algorithm().reference();
  if (!reference.empty())
    ATOD_RETURN_IF_ERROR(
        CheckModelPath(loaded, "algorithm.reference", reference));
  const std::string& data = c.env().data();
  if (!std::filesystem::is_directory(data))
    return Refuse(loaded, "env.data", data.empty() ? "nothing" : data,
                  "an existing folder");
  for (const auto& [field, split] :
       {std::pair<std::string, std::string>("env.train_split",
                                            c.env().train_split()),
        {"eval.split", c.eval().every() > 0 ? c.eval().split() : ""}})
    if (!std::filesystem::is_directory(data + "/" + split))
      return Refuse(loaded, field, split,
                    absl::StrCat("a folder of games in ", data));
  ATOD_RETURN_IF_ERROR(CheckRunFolder(loaded));
  return learner::CheckRecipeInputs(c);
}

absl::Status OpenInputs(const config::LoadedConfig& loaded, bool warn) {
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                        OpenModels(loaded.config));
  return OpenGames(loaded, *tokenizer, warn);
}

}  // namespace atod::cli

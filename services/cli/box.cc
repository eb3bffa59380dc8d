#include "services/cli/box.h"

#include <signal.h>

#include <algorithm>
#include <deque>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "services/cli/progress.h"
#include "services/cli/screen.h"
#include "services/cli/supervisor.h"

namespace atod::cli {
namespace {

namespace fs = std::filesystem;

constexpr char kLearner[] = "learner";
// A role that ends so often within a minute is broken, not unlucky.
constexpr int kMaxRestartsPerMinute = 5;

std::string ProgramPath(const std::string& name) {
  std::error_code ec;
  const fs::path self = fs::read_symlink("/proc/self/exe", ec);
  return (self.parent_path() / name).string();
}

uint32_t ThreadsOrAll(uint32_t configured) {
  return configured > 0 ? configured
                        : std::max(1u, std::thread::hardware_concurrency());
}

// The last lines of a log, for the error of a service that keeps dying.
std::string Tail(const std::string& path, size_t lines) {
  std::ifstream in(path);
  std::deque<std::string> last;
  for (std::string line; std::getline(in, line);) {
    last.push_back(line);
    if (last.size() > lines) last.pop_front();
  }
  std::string out;
  for (const std::string& line : last)
    absl::StrAppend(&out, "    ", line, "\n");
  return out;
}

// What the service itself said last: its newest `error: …` line, without that
// word; empty when it died without one.
std::string OwnError(const std::string& path) {
  std::ifstream in(path);
  std::string last;
  for (std::string line; std::getline(in, line);)
    if (absl::StartsWith(line, "error: ")) last = line.substr(7);
  return last;
}

class Box {
 public:
  Box(const v1::RunConfig& config, const BoxOptions& options)
      : config_(config),
        run_dir_((fs::path(config_.runs_dir()) / config_.name()).string()) {
    std::vector<std::string> args;
    for (const std::string& file : options.files)
      args.insert(args.end(), {"--config", file});
    for (const std::string& set : options.sets)
      args.insert(args.end(), {"--set", set});
    // One server an address of rpc.envs.
    const size_t servers = 1 + std::count(config_.rpc().envs().begin(),
                                          config_.rpc().envs().end(), ',');
    for (size_t i = 0; i < servers; ++i) {
      std::vector<std::string> env_args = args;
      env_args.insert(env_args.end(), {"--index", absl::StrCat(i)});
      Add(i == 0 ? "envs" : absl::StrCat("envs-", i), "atod-envs", env_args, {},
          1, options.learner_only);
    }
    Add("teacher", "atod-teacher", args, {}, config_.threads().teacher(),
        options.learner_only || config_.teachers().empty());
    std::vector<std::string> learner_args = args;
    if (!options.resume.empty())
      learner_args.insert(learner_args.end(), {"--resume", options.resume});
    if (!options.fork.empty())
      learner_args.insert(learner_args.end(), {"--fork", options.fork});
    Add(kLearner, "atod-learner", learner_args, {"--resume", "latest"},
        config_.threads().learner(), false);
    for (uint32_t i = 0; i < config_.rollout().workers(); ++i) {
      std::vector<std::string> rollout_args = args;
      rollout_args.insert(rollout_args.end(), {"--index", absl::StrCat(i)});
      Add(absl::StrCat("rollout-", i), "atod-rollout", rollout_args, {},
          config_.threads().rollout(), options.learner_only);
    }
  }

  absl::StatusOr<int> Run() {
    ATOD_RETURN_IF_ERROR(MakeDirs(run_dir_ + "/logs"));
    Supervisor supervisor;
    for (const ProcessSpec& spec : specs_)
      ATOD_RETURN_IF_ERROR(supervisor.Start(spec));
    screen_.Line(absl::StrCat("run ", config_.name(), ": ", config_.steps(),
                              " steps, ", specs_.size(), " processes, logs in ",
                              run_dir_, "/logs"));
    StepFollower follower(run_dir_);
    const absl::Time start = absl::Now();
    std::optional<double> first_step;
    double last_step = 0;
    while (true) {
      const SupervisorEvent event = supervisor.Wait(absl::Milliseconds(500));
      const std::vector<StepFollower::Step> steps = follower.Poll();
      // A resumed run has lines of its earlier life.
      const bool earlier = !first_step && steps.size() > 1;
      if (!first_step && !steps.empty()) first_step = steps.back().at("step");
      if (earlier)
        screen_.Line(
            absl::StrCat("steps up to ", *first_step, " are recorded"));
      for (const StepFollower::Step& step : steps) {
        last_step = step.at("step");
        if (earlier) continue;
        std::string line = StepLine(step, config_.steps());
        const auto left = TimeLeft(absl::Now() - start, last_step - *first_step,
                                   config_.steps() - *first_step);
        if (left) absl::StrAppend(&line, "  ETA ", ShortDuration(*left));
        screen_.Line(line);
      }
      if (event.kind == SupervisorEvent::Kind::kInterrupted) {
        screen_.Line(
            "stopping: the learner writes a checkpoint (Ctrl-C again kills)");
        supervisor.Signal(kLearner, SIGTERM);
        WaitForLearner(supervisor);
        supervisor.StopAll(absl::Seconds(10));
        screen_.Line(absl::StrCat("stopped after step ", last_step,
                                  "; `atod up --resume` goes on from there"));
        return 130;
      }
      if (event.kind == SupervisorEvent::Kind::kExited) {
        if (event.name == kLearner && event.exit_code == 0) break;
        ATOD_RETURN_IF_ERROR(OnExit(supervisor, event));
      }
      ATOD_RETURN_IF_ERROR(StartDrained(supervisor));
      screen_.Bottom(absl::StrFormat("%s running, %d restarts",
                                     ShortDuration(absl::Now() - start),
                                     restarts_));
    }
    supervisor.StopAll(absl::Seconds(10));
    screen_.Line(
        absl::StrFormat("run %s: done in %s, %d restarts", config_.name(),
                        ShortDuration(absl::Now() - start), restarts_));
    return 0;
  }

 private:
  void Add(const std::string& name, const std::string& program,
           const std::vector<std::string>& args, std::vector<std::string> again,
           uint32_t threads, bool skip) {
    if (skip) return;
    ProcessSpec spec;
    spec.name = name;
    spec.argv = {ProgramPath(program)};
    spec.argv.insert(spec.argv.end(), args.begin(), args.end());
    spec.again = std::move(again);
    // Spinning OpenMP workers of one role would starve the others.
    spec.env = {{"OMP_NUM_THREADS", absl::StrCat(ThreadsOrAll(threads))},
                {"OMP_WAIT_POLICY", "passive"}};
    spec.log_path = absl::StrCat(run_dir_, "/logs/", name, ".log");
    specs_.push_back(std::move(spec));
  }

  const ProcessSpec& Spec(const std::string& name) const {
    return *std::find_if(specs_.begin(), specs_.end(),
                         [&](const ProcessSpec& s) { return s.name == name; });
  }

  absl::Status OnExit(Supervisor& supervisor, const SupervisorEvent& event) {
    const ProcessSpec& spec = Spec(event.name);
    const absl::Time now = absl::Now();
    if (event.exit_code == 0) {
      // The learner sends workers home when the run is over; it ends next.
      drained_[event.name] = now + absl::Seconds(10);
      return absl::OkStatus();
    }
    std::deque<absl::Time>& ends = ends_[event.name];
    ends.push_back(now);
    while (now - ends.front() > absl::Minutes(1)) ends.pop_front();
    // Exit status 2 is bad input: it would fail the same way again.
    if (event.exit_code == 2 ||
        static_cast<int>(ends.size()) > kMaxRestartsPerMinute) {
      supervisor.StopAll(absl::Seconds(10));
      screen_.Line(absl::StrCat(event.name, " ended with ", event.how,
                                "; the end of ", spec.log_path, ":\n",
                                Tail(spec.log_path, 8)));
      // A signal leaves no error line; an older one would mislead.
      const std::string own =
          event.exit_code < 128 ? OwnError(spec.log_path) : "";
      const std::string message = absl::StrCat(
          event.name, ": ",
          own.empty() ? absl::StrCat("ended with ", event.how) : own,
          " (log: ", spec.log_path, ")");
      // Its own exit status: bad input is 2 here, too.
      return event.exit_code == 2 ? absl::InvalidArgumentError(message)
                                  : absl::InternalError(message);
    }
    ++restarts_;
    screen_.Line(absl::StrCat(event.name, " ended with ", event.how,
                              "; starting it again"));
    return supervisor.Start(spec);
  }

  // A service that ended by itself although the run goes on is started again.
  absl::Status StartDrained(Supervisor& supervisor) {
    for (auto it = drained_.begin(); it != drained_.end();) {
      if (absl::Now() < it->second) {
        ++it;
        continue;
      }
      ++restarts_;
      screen_.Line(absl::StrCat(it->first, " ended; starting it again"));
      ATOD_RETURN_IF_ERROR(supervisor.Start(Spec(it->first)));
      it = drained_.erase(it);
    }
    return absl::OkStatus();
  }

  void WaitForLearner(Supervisor& supervisor) {
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    while (supervisor.running(kLearner) && absl::Now() < deadline) {
      const SupervisorEvent event = supervisor.Wait(absl::Seconds(1));
      if (event.kind == SupervisorEvent::Kind::kInterrupted) return;
    }
  }

  const v1::RunConfig config_;
  const std::string run_dir_;
  std::vector<ProcessSpec> specs_;
  std::map<std::string, std::deque<absl::Time>> ends_;
  std::map<std::string, absl::Time> drained_;  // to when it may stay away
  int restarts_ = 0;
  Screen screen_;
};

}  // namespace

absl::StatusOr<int> RunBox(const v1::RunConfig& config,
                           const BoxOptions& options) {
  return Box(config, options).Run();
}

}  // namespace atod::cli

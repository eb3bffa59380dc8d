#include "services/cli/box.h"

#include <signal.h>

#include <algorithm>
#include <deque>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/base/cpus.h"
#include "common/base/status_macros.h"
#include "common/run/run_folder.h"
#include "services/cli/log_follower.h"
#include "services/cli/progress.h"
#include "services/cli/screen.h"
#include "services/cli/supervisor.h"
#include "services/learner/run_checkpoint.h"

namespace atod::cli {
namespace {

namespace fs = std::filesystem;

constexpr char kLearner[] = "learner";
// Lives of a service, one after the other, in which the run recorded no new
// step: more are no bad luck.
constexpr int kMaxBarrenLives = 5;

std::string ProgramPath(const std::string& name) {
  std::error_code ec;
  const fs::path self = fs::read_symlink("/proc/self/exe", ec);
  return (self.parent_path() / name).string();
}

uint32_t ThreadsOrAll(uint32_t configured) {
  return configured > 0 ? configured : AvailableCpus();
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

class Box {
 public:
  Box(const v1::RunConfig& config, const BoxOptions& options)
      : config_(config), run_(config_.runs_dir(), config_.name()) {
    std::vector<std::string> args;
    for (const std::string& file : options.files)
      args.insert(args.end(), {"--config", file});
    for (const std::string& set : options.sets)
      args.insert(args.end(), {"--set", set});
    AddEach("envs", "atod-envs", config_.rpc().envs(), args, 1,
            options.learner_only);
    AddEach("teacher", "atod-teacher", config_.rpc().teacher(), args,
            config_.threads().teacher(),
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
    ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<FolderLock> lock,
                          run_.LockLogs());
    StepFollower follower(run_, start_);
    follower.Poll();
    Supervisor supervisor;
    for (const ProcessSpec& spec : specs_) {
      followers_.try_emplace(spec.name, spec.log_path);
      ATOD_RETURN_IF_ERROR(supervisor.Start(spec));
    }
    screen_.Line(absl::StrCat("run ", config_.name(), ": ", config_.steps(),
                              " steps, ", specs_.size(), " processes, logs in ",
                              run_.logs()));
    if (follower.earlier())
      screen_.Line(
          absl::StrCat("steps up to ", *follower.earlier(), " are recorded"));
    while (true) {
      const SupervisorEvent event = supervisor.Wait(absl::Milliseconds(500));
      ShowSteps(follower);
      ShowWarnings();
      if (event.kind == SupervisorEvent::Kind::kInterrupted)
        return Interrupted(supervisor);
      if (event.kind == SupervisorEvent::Kind::kExited) {
        if (event.name == kLearner && event.exit_code == 0) break;
        ATOD_RETURN_IF_ERROR(OnExit(supervisor, event));
      }
      ATOD_RETURN_IF_ERROR(StartDrained(supervisor));
      screen_.Bottom(absl::StrFormat("%s running, %d restarts",
                                     ShortDuration(absl::Now() - start_),
                                     restarts_));
    }
    supervisor.StopAll(absl::Seconds(10));
    ShowWarnings();
    screen_.Line(
        absl::StrFormat("run %s: done in %s, %d restarts", config_.name(),
                        ShortDuration(absl::Now() - start_), restarts_));
    return 0;
  }

 private:
  // One server an address.
  void AddEach(const std::string& name, const std::string& program,
               const std::string& addresses,
               const std::vector<std::string>& args, uint32_t threads,
               bool skip) {
    const size_t servers =
        1 + std::count(addresses.begin(), addresses.end(), ',');
    for (size_t i = 0; i < servers; ++i) {
      std::vector<std::string> own = args;
      own.insert(own.end(), {"--index", absl::StrCat(i)});
      Add(i == 0 ? name : absl::StrCat(name, "-", i), program, own, {}, threads,
          skip);
    }
  }

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
    spec.log_path = run_.log(name);
    specs_.push_back(std::move(spec));
  }

  const ProcessSpec& Spec(const std::string& name) const {
    return *std::find_if(specs_.begin(), specs_.end(),
                         [&](const ProcessSpec& s) { return s.name == name; });
  }

  void ShowSteps(StepFollower& follower) {
    for (const RecordedStep& step : follower.Poll()) {
      barren_.clear();
      if (!first_step_) first_step_ = step.step;
      std::string line = StepLine(step, config_.steps());
      const auto left = TimeLeft(absl::Now() - start_, step.step - *first_step_,
                                 config_.steps() - *first_step_);
      if (left) absl::StrAppend(&line, "  ETA ", ShortDuration(*left));
      screen_.Line(line);
    }
  }

  // Each text once, whoever says it again. An error is shown with the end that
  // it explains.
  void ShowWarnings() {
    for (auto& [name, follower] : followers_) {
      for (LogFollower::Said& said : follower.Poll()) {
        if (said.error) {
          errors_[name] = std::move(said.text);
        } else if (shown_.insert(said.text).second) {
          screen_.Line(absl::StrCat(name, ": warning: ", said.text));
        }
      }
    }
  }

  int Interrupted(Supervisor& supervisor) {
    screen_.Line(
        "stopping: the learner writes a checkpoint (Ctrl-C again kills)");
    supervisor.Signal(kLearner, SIGTERM);
    WaitForLearner(supervisor);
    supervisor.StopAll(absl::Seconds(10));
    const auto checkpoint = learner::FindCheckpoint(run_, "latest");
    screen_.Line(
        checkpoint.ok() && !checkpoint->empty()
            ? absl::StrCat("stopped; `atod up --resume` goes on from ",
                           *checkpoint)
            : "stopped before the first checkpoint; `atod up --resume` starts "
              "from the beginning");
    return 130;
  }

  absl::Status OnExit(Supervisor& supervisor, const SupervisorEvent& event) {
    if (event.exit_code == 0) {
      // The learner sends workers home when the run is over; it ends next.
      drained_[event.name] = absl::Now() + absl::Seconds(10);
      return absl::OkStatus();
    }
    const std::string error = std::exchange(errors_[event.name], "");
    const std::string why =
        error.empty() ? event.how : absl::StrCat(error, " (", event.how, ")");
    const int lives = ++barren_[event.name];
    // Exit status 2 is bad input: it would fail the same way again.
    if (event.exit_code == 2 || lives > kMaxBarrenLives)
      return GiveUp(supervisor, event, error.empty() ? "" : why, lives);
    const bool known = !shown_.insert(event.name + error).second;
    screen_.Line(absl::StrCat(
        event.name, " ended",
        known ? absl::StrCat(" again (", event.how, ")") : ": " + why,
        "; starting it again"));
    return Restart(supervisor, event.name);
  }

  // The error that the run ends with. Without words of the service itself the
  // end of its log must do.
  absl::Status GiveUp(Supervisor& supervisor, const SupervisorEvent& event,
                      const std::string& why, int lives) {
    supervisor.StopAll(absl::Seconds(10));
    const std::string& log = Spec(event.name).log_path;
    if (why.empty())
      screen_.Line(absl::StrCat(event.name, " ended with ", event.how,
                                "; the end of ", log, ":\n", Tail(log, 8)));
    const std::string message = absl::StrCat(
        event.name, ": ",
        why.empty() ? absl::StrCat("ended with ", event.how) : why,
        lives > kMaxBarrenLives
            ? absl::StrCat("; ", lives, " lives in a row without a new step")
            : "",
        " (log: ", log, ")");
    // Its own exit status: bad input is 2 here, too.
    return event.exit_code == 2 ? absl::InvalidArgumentError(message)
                                : absl::InternalError(message);
  }

  absl::Status Restart(Supervisor& supervisor, const std::string& name) {
    ++restarts_;
    return supervisor.Start(Spec(name));
  }

  // A service that ended by itself although the run goes on is started again.
  absl::Status StartDrained(Supervisor& supervisor) {
    for (auto it = drained_.begin(); it != drained_.end();) {
      if (absl::Now() < it->second) {
        ++it;
        continue;
      }
      const int lives = ++barren_[it->first];
      if (lives > kMaxBarrenLives)
        return GiveUp(supervisor, {.name = it->first, .how = "exit status 0"},
                      "", lives);
      screen_.Line(absl::StrCat(it->first, " ended; starting it again"));
      ATOD_RETURN_IF_ERROR(Restart(supervisor, it->first));
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
  const RunFolder run_;
  std::vector<ProcessSpec> specs_;
  const absl::Time start_ = absl::Now();
  std::map<std::string, LogFollower> followers_;  // by service, as all below
  std::map<std::string, std::string> errors_;     // last words of this life
  std::map<std::string, int> barren_;          // lives since the last new step
  std::map<std::string, absl::Time> drained_;  // to when it may stay away
  int restarts_ = 0;
  std::set<std::string> shown_;
  std::optional<double> first_step_;
  Screen screen_;
};

}  // namespace

absl::StatusOr<int> RunBox(const v1::RunConfig& config,
                           const BoxOptions& options) {
  return Box(config, options).Run();
}

}  // namespace atod::cli

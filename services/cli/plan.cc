#include "services/cli/plan.h"

#include <algorithm>
#include <cstdlib>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/base/file.h"
#include "common/config/config.h"
#include "common/model/memory.h"
#include "services/learner/recipe_of.h"
#include "services/teacher/scorer.h"

namespace atod::cli {
namespace {

constexpr char kMemInfo[] = "/proc/meminfo";
constexpr char kContainerLimit[] = "/sys/fs/cgroup/memory.max";

std::string Gib(uint64_t bytes) {
  const double gib = static_cast<double>(bytes) / (1 << 30);
  return gib >= 0.1 ? absl::StrFormat("%.1f GiB", gib)
                    : absl::StrFormat("%.1f MiB", gib * 1024);
}

bool OnGpu(const v1::RunConfig& c) { return c.device() == "cuda"; }

model::MemoryOptions OptionsOf(const v1::RunConfig& c, uint32_t threads,
                               bool gradients) {
  model::MemoryOptions out;
  out.dtype = c.model().dtype();
  out.cuda = OnGpu(c);
  out.exact = c.deterministic();
  out.gradients = gradients;
  out.max_context = c.model().max_context();
  out.threads =
      threads > 0 ? threads : std::max(1u, std::thread::hardware_concurrency());
  return out;
}

// A pass of `tokens` in sequences as long as can be, of which the responses
// are scored.
model::PassShape Scored(const v1::RunConfig& c, int64_t tokens) {
  model::PassShape out;
  out.longest = c.model().max_context();
  out.tokens = std::max(tokens, out.longest);
  const int64_t response =
      std::min<int64_t>(c.sampling().train().max_tokens(), out.longest);
  out.outputs = (out.tokens * response + out.longest - 1) / out.longest;
  return out;
}

// The most of held, or of phases, in one place.
template <typename Counts>
uint64_t Most(const ProcessMemory& memory, Counts counts) {
  uint64_t held = 0, phase = 0;
  for (const ProcessMemory::Item& item : memory.held)
    if (counts(item)) held += item.bytes;
  for (const ProcessMemory::Item& item : memory.phases)
    if (counts(item)) phase = std::max(phase, item.bytes);
  return held + phase;
}

void AddModel(const std::string& of, const model::ModelMemory& model,
              ProcessMemory& out) {
  out.held.push_back({of + "parameters", model.Values()});
  if (model.Layout() > 0)
    out.held.push_back(
        {of + "parameters as the kernels read them", model.Layout()});
}

std::string Items(const std::vector<ProcessMemory::Item>& items, bool cuda,
                  const char* between) {
  std::vector<std::string> out;
  for (const ProcessMemory::Item& item : items)
    out.push_back(absl::StrCat(Gib(item.bytes), " ", item.what,
                               cuda && item.on_host ? " (host)" : ""));
  return absl::StrJoin(out, between);
}

std::string Amount(uint64_t host, uint64_t device, bool cuda) {
  return cuda ? absl::StrCat(Gib(device), " of the GPU and ", Gib(host),
                             " of the host")
              : Gib(host);
}

std::string MemoryLines(const std::vector<ProcessMemory>& processes,
                        const v1::RunConfig& c) {
  const bool cuda = OnGpu(c);
  std::string out =
      absl::StrCat("memory for models, ", c.model().dtype(), ", back end ",
                   c.deterministic() ? "cpu-exact" : "torch", ", ", c.device(),
                   " (docs/operations.md; libraries come on top):\n");
  uint64_t host = 0, device = 0;
  for (const ProcessMemory& p : processes) {
    if (!p.unknown.empty()) {
      absl::StrAppend(&out, "  ", p.process, ": unknown (", p.unknown, ")\n");
      continue;
    }
    host += p.Host(cuda);
    device += p.Device(cuda);
    absl::StrAppend(&out, "  ", p.process, ": ",
                    Amount(p.Host(cuda), p.Device(cuda), cuda), " = ",
                    Items(p.held, cuda, " + "),
                    " + the most of: ", Items(p.phases, cuda, ", "), "\n");
  }
  absl::StrAppend(
      &out, "  together, on one machine: ", Amount(host, device, cuda), "\n");
  const uint64_t there = HostMemory();
  if (there > 0 && host > there)
    absl::StrAppend(&out, "  this machine has ", Gib(there),
                    ": too little for all of them\n");
  return out;
}

// The number behind `key` in a file, in `unit` bytes; 0 when there is none.
uint64_t NumberIn(const char* file, const std::string& key, uint64_t unit) {
  const absl::StatusOr<std::string> text = ReadFile(file);
  const size_t at = text.ok() ? text->find(key) : std::string::npos;
  if (at == std::string::npos) return 0;
  return unit * std::strtoull(text->c_str() + at + key.size(), nullptr, 10);
}

}  // namespace

uint64_t ProcessMemory::Host(bool cuda) const {
  return Most(*this, [&](const Item& i) { return !cuda || i.on_host; });
}

uint64_t ProcessMemory::Device(bool cuda) const {
  return Most(*this, [&](const Item& i) { return cuda && !i.on_host; });
}

ProcessMemory LearnerMemory(const v1::RunConfig& c,
                            const model::ModelConfig& student,
                            const model::ModelConfig* reference) {
  const model::ModelMemory m(student,
                             OptionsOf(c, c.threads().learner(), true));
  const int64_t tokens = c.optimizer().micro_batch_tokens();
  const model::PassShape pass = Scored(c, tokens);
  const uint64_t sent = m.Values();
  ProcessMemory out;
  out.process = "learner";
  AddModel("", m, out);
  if (m.Masters() > 0) out.held.push_back({"float32 masters", m.Masters()});
  out.held.push_back({"float32 gradients", m.Gradients()});
  out.held.push_back({"AdamW's moments", 2 * m.Gradients()});
  if (m.Tapes(pass) > 0)
    out.held.push_back({absl::StrCat("activations of ", pass.tokens, " tokens"),
                        m.Tapes(pass)});
  if (reference != nullptr)
    AddModel("reference model's ",
             model::ModelMemory(*reference,
                                OptionsOf(c, c.threads().learner(), false)),
             out);
  out.held.push_back({"the version that is sent", sent, true});
  out.phases.push_back({"scoring", m.Score(pass)});
  out.phases.push_back({"forward and backward", m.Train(pass)});
  out.phases.push_back({"the next version", sent, true});
  return out;
}

ProcessMemory RolloutMemory(const v1::RunConfig& c,
                            const model::ModelConfig& student) {
  const model::ModelMemory m(student,
                             OptionsOf(c, c.threads().rollout(), false));
  const uint64_t rows = config::RolloutKvTokens(c);
  ProcessMemory out;
  out.process = "rollout";
  AddModel("", m, out);
  out.held.push_back({absl::StrCat("keys and values of ", rows, " tokens"),
                      rows * m.CacheRow()});
  out.held.push_back({"the version held", m.Values(), true});
  model::PassShape step;
  step.tokens = std::max(c.rollout().batch_tokens(), c.rollout().slots());
  step.longest = c.model().max_context();
  step.outputs = c.rollout().slots();
  // Threads of cpu-exact keep theirs.
  (c.deterministic() ? out.held : out.phases)
      .push_back({"a step", m.Step(step)});
  out.phases.push_back({"the next version", m.Values(), true});
  return out;
}

ProcessMemory TeacherMemory(const v1::RunConfig& c,
                            const std::vector<model::ModelConfig>& teachers) {
  ProcessMemory out;
  out.process = "teacher";
  for (size_t i = 0; i < teachers.size(); ++i) {
    const model::ModelMemory m(teachers[i],
                               OptionsOf(c, c.threads().teacher(), false));
    const std::string name =
        static_cast<int>(i) < c.teachers_size() ? c.teachers(i).name() : "";
    AddModel(name + (name.empty() ? "" : "'s "), m, out);
    if (const uint64_t rows = config::TeacherKvTokens(c, static_cast<int>(i)))
      out.held.push_back({absl::StrCat("keys and values of ", rows, " tokens"),
                          rows * m.CacheRow()});
    out.phases.push_back(
        {"scoring",
         m.Score(Scored(c, teacher::ScorerOptions().max_forward_tokens))});
  }
  return out;
}

std::vector<ProcessMemory> PlanMemory(const v1::RunConfig& c) {
  const auto recipe = learner::RecipeOf(c.algorithm());
  const bool needs_reference = recipe.ok() && recipe->needs_reference;
  const bool needs_teacher = !recipe.ok() || recipe->needs_teacher;
  const auto read =
      [](const std::string& path) -> absl::StatusOr<model::ModelConfig> {
    if (path.empty()) return absl::NotFoundError("no model is named");
    return model::ReadModelConfig(path);
  };
  const auto unknown = [](const std::string& process, const absl::Status& why) {
    ProcessMemory out;
    out.process = process;
    out.unknown = std::string(why.message());
    return out;
  };
  std::vector<ProcessMemory> out;
  const absl::StatusOr<model::ModelConfig> student = read(c.model().path());
  absl::StatusOr<model::ModelConfig> reference = student;
  if (!c.algorithm().reference().empty())
    reference = read(c.algorithm().reference());
  if (!student.ok())
    out.push_back(unknown("learner", student.status()));
  else if (needs_reference && !reference.ok())
    out.push_back(unknown("learner", reference.status()));
  else
    out.push_back(
        LearnerMemory(c, *student, needs_reference ? &*reference : nullptr));
  const uint32_t workers = c.rollout().workers();
  for (uint32_t i = 0; i < workers; ++i) {
    out.push_back(student.ok() ? RolloutMemory(c, *student)
                               : unknown("rollout", student.status()));
    if (workers > 1) absl::StrAppend(&out.back().process, " ", i);
  }
  if (!needs_teacher || c.teachers().empty()) return out;
  std::vector<model::ModelConfig> teachers;
  for (const v1::TeacherConfig& teacher : c.teachers()) {
    const absl::StatusOr<model::ModelConfig> model = read(teacher.path());
    if (!model.ok()) {
      out.push_back(unknown("teacher " + teacher.name(), model.status()));
      return out;
    }
    teachers.push_back(*model);
  }
  // One process an address.
  const std::string& addresses = c.rpc().teacher();
  const auto processes =
      1 + std::count(addresses.begin(), addresses.end(), ',');
  for (int64_t i = 0; i < processes; ++i) {
    out.push_back(TeacherMemory(c, teachers));
    if (processes > 1) absl::StrAppend(&out.back().process, " ", i);
  }
  return out;
}

uint64_t HostMemory() {
  const uint64_t all = NumberIn(kMemInfo, "MemTotal:", 1024);
  const uint64_t container = NumberIn(kContainerLimit, "", 1);
  return container > 0 ? std::min(all, container) : all;
}

absl::Status CheckGpuMemory(const std::vector<ProcessMemory>& processes,
                            uint64_t there) {
  uint64_t needed = 0;
  for (const ProcessMemory& p : processes) needed += p.Device(true);
  if (needed <= there) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "memory of the GPU: found ", Gib(there), ", expected ", Gib(needed),
      " for all processes that share it; fewer optimizer.micro_batch_tokens, "
      "rollout.kv_tokens or rollout.workers need less"));
}

std::string Plan(const v1::RunConfig& c) {
  const uint64_t episodes =
      uint64_t{c.algorithm().tasks_per_step()} * c.algorithm().group_size();
  const uint32_t evals =
      c.eval().every() == 0
          ? 0
          : 1 + (c.steps() + c.eval().every() - 1) / c.eval().every();
  const uint64_t turns = episodes * c.env().max_turns();
  const bool fixed = c.optimizer().turns_per_update() == 0;
  const uint64_t updates =
      fixed ? c.optimizer().updates_per_step()
            : (turns - 1) / c.optimizer().turns_per_update() + 1;
  return absl::StrCat(
      absl::StrFormat(
          "recipe %s, profile %s: %d steps of %d tasks x %d rollouts = %d "
          "episodes a step (%d in all)\n"
          "updates: %s (%d in all), %.4g episodes each\n"
          "longest episode: %d turns x %d response tokens; evaluation: %d "
          "times %d games of %s\n"
          "tokens a step, at most: %d sampled, %d read by the learner (a turn "
          "is a prompt and a response, %d tokens together)\n",
          c.algorithm().recipe(), c.algorithm().profile(), c.steps(),
          c.algorithm().tasks_per_step(), c.algorithm().group_size(), episodes,
          episodes * c.steps(),
          fixed ? absl::StrFormat("%d a step", updates)
                : absl::StrFormat("one for %d turns, at most %d a step",
                                  c.optimizer().turns_per_update(), updates),
          updates * c.steps(), static_cast<double>(episodes) / updates,
          c.env().max_turns(), c.sampling().train().max_tokens(), evals,
          c.eval().panel_size(), c.eval().split(),
          turns * c.sampling().train().max_tokens(),
          turns * c.model().max_context(), c.model().max_context()),
      MemoryLines(PlanMemory(c), c));
}

}  // namespace atod::cli

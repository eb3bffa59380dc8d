#include "services/cli/diagnose_command.h"

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/file.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "nlohmann/json.hpp"
#include "services/cli/command.h"
#include "services/cli/panel_flags.h"
#include "services/rollout/diagnosis.h"
#include "services/rollout/evaluate.h"
#include "services/teacher/scorer.h"

namespace atod::cli {
namespace {

struct DiagnoseFlags {
  PanelFlags panel;
  std::string teacher;
  std::string profile = "default";
};

// h is no entropy of greedy play.
absl::Status CheckTemperature(double temperature) {
  if (temperature > 0) return absl::OkStatus();
  return BadInput({"diagnose", "--temperature", 0, absl::StrCat(temperature),
                   "a number above 0"});
}

absl::StatusOr<int> RunDiagnose(DiagnoseFlags& flags) {
  ATOD_RETURN_IF_ERROR(CheckTemperature(flags.panel.temperature));
  ATOD_ASSIGN_OR_RETURN(const rollout::Panel panel, OpenPanel(flags.panel));
  // A configuration may have said otherwise.
  const double temperature = panel.config.sampling().train().temperature();
  ATOD_RETURN_IF_ERROR(CheckTemperature(temperature));
  const std::string teacher_dir = ModelFolder(flags.teacher);
  ATOD_ASSIGN_OR_RETURN(const rollout::PanelPlayer player,
                        rollout::LoadPlayer(panel));
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> other,
                        Tokenizer::Load(teacher_dir));
  if (other->hash() != player.tokenizer->hash()) {
    return BadInput({flags.teacher, "tokenizer", 0, other->hash(),
                     absl::StrCat(player.tokenizer->hash(),
                                  " as in --model: a teacher scores the "
                                  "student's token ids")});
  }
  const v1::RunConfig& c = panel.config;
  const teacher::ScorerOptions scorer{.dtype = c.model().dtype(),
                                      .device = c.device(),
                                      .deterministic = c.deterministic(),
                                      .max_context = c.model().max_context()};
  ATOD_ASSIGN_OR_RETURN(
      const teacher::LoadedScorer student,
      teacher::MakeScorer(panel.config.model().path(), scorer));
  ATOD_ASSIGN_OR_RETURN(const teacher::LoadedScorer teacher,
                        teacher::MakeScorer(teacher_dir, scorer));
  ATOD_ASSIGN_OR_RETURN(
      std::vector<v1::Trajectory> episodes,
      rollout::PlayTasks(*player.engine, *player.envs, *player.tokenizer,
                         panel.tasks, panel.options));
  std::vector<rollout::EvalResult> results;
  for (const v1::Trajectory& e : episodes)
    results.push_back(rollout::ResultOf(e));
  if (!FewErrors(results, panel)) return 1;
  std::erase_if(episodes,
                [](const auto& e) { return e.outcome().has_error(); });
  ATOD_ASSIGN_OR_RETURN(const std::vector<rollout::TurnDiagnosis> turns,
                        rollout::Diagnose(episodes, *student.scorer,
                                          *teacher.scorer, flags.profile));

  if (turns.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(flags.panel.model, ": found no turn in ", episodes.size(),
                     " games, expected some: does a prompt fit --max-context ",
                     c.model().max_context(), " less --max-tokens ",
                     c.sampling().train().max_tokens(), "?"));
  }
  double wins = 0, length = 0;
  for (const v1::Trajectory& e : episodes) {
    wins += e.outcome().success();
    length += e.outcome().length();
  }
  const double n = static_cast<double>(episodes.size());
  absl::PrintF(
      "%s against %s: %d games of %s (panel %s), T = %g, success %.1f %%, %.1f "
      "turns\n",
      flags.panel.model, flags.teacher, episodes.size(), panel.options.split,
      panel.hash, temperature, 100 * wins / n, length / n);
  absl::PrintF("%5s %8s  %-17s  %-17s  %-17s\n", "turn", "samples", "d", "h",
               "w");
  nlohmann::ordered_json head;
  head["model"] = flags.panel.model;
  head["teacher"] = flags.teacher;
  head["split"] = panel.options.split;
  head["panel"] = panel.hash;
  head["games"] = episodes.size();
  head["temperature"] = temperature;
  head["profile"] = flags.profile;
  head["success_rate"] = wins / n;
  head["length"] = length / n;
  std::string lines = head.dump() + "\n";
  for (const rollout::TurnDiagnosis& t : turns) {
    absl::PrintF("%5d %8d  %.4f +- %.4f  %.4f +- %.4f  %.4f +- %.4f\n", t.turn,
                 t.samples, t.d, t.d_stderr, t.h, t.h_stderr, t.w, t.w_stderr);
    nlohmann::ordered_json line;
    line["turn"] = t.turn;
    line["samples"] = t.samples;
    line["d"] = t.d;
    line["d_stderr"] = t.d_stderr;
    line["h"] = t.h;
    line["h_stderr"] = t.h_stderr;
    line["w"] = t.w;
    line["w_stderr"] = t.w_stderr;
    absl::StrAppend(&lines, line.dump(), "\n");
  }
  absl::PrintF("turns from 0; mean +- standard error of the mean, nats\n");
  if (!flags.panel.out.empty())
    ATOD_RETURN_IF_ERROR(WriteFileAtomic(flags.panel.out, lines));
  return 0;
}

}  // namespace

void AddDiagnoseCommand(Command app) {
  auto flags = std::make_shared<DiagnoseFlags>();
  // As training samples: h estimates the entropy at this temperature alone.
  flags->panel.temperature = 1;
  flags->panel.choice.train_temperature = true;
  Command sub =
      app.Add("diagnose",
              "d, h and w by turn position of any checkpoint against a teacher",
              [=] { return RunDiagnose(*flags); });
  sub.Arg("--model", flags->panel.model, "folder of the model that plays")
      .Required();
  sub.Arg("--teacher", flags->teacher, "folder of the model that scores")
      .Required();
  AddPanelFlags(sub, flags->panel);
  sub.Arg("--profile", flags->profile, "guards of the turn weights")
      .OneOf({"paper", "default"})
      .ShowDefault();
  sub.Arg("--out", flags->panel.out,
          "JSONL: what was played, then one line a turn; `atod report` "
          "shows RUN/diagnose/*.jsonl");
}

}  // namespace atod::cli

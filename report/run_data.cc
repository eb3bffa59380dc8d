#include "report/run_data.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <memory>
#include <set>
#include <string_view>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/run/run_folder.h"
#include "common/run/step_line.h"
#include "common/tokenizer/tokenizer.h"
#include "services/learner/advantage_file.h"
#include "services/learner/run_fork.h"
#include "services/learner/trajectory_store.h"
#include "services/learner/work_id.h"
#include "yaml-cpp/yaml.h"

namespace atod::report {
namespace {

namespace fs = std::filesystem;
using learner::StoredAdvantages;
using learner::StoredTurn;
using nlohmann::json;

// Values of the wrong type count as absent: a report shows what it can.
double NumberAt(const json& object, const char* key, double otherwise = 0) {
  const auto it = object.find(key);
  return it != object.end() && it->is_number() ? it->get<double>() : otherwise;
}
std::string TextAt(const json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

// What `parse` makes of a file's lines. The last line may be torn: its writer
// may be at work or dead.
template <typename T>
absl::StatusOr<std::vector<T>> ReadLines(
    const std::string& path, std::optional<T> (*parse)(std::string_view),
    const char* expected) {
  ATOD_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  std::vector<T> out;
  int64_t line = 0;
  for (const absl::string_view piece : absl::StrSplit(text, '\n')) {
    ++line;
    if (piece.empty()) continue;
    if (auto value = parse({piece.data(), piece.size()})) {
      out.push_back(*std::move(value));
      continue;
    }
    if (piece.data() + piece.size() == text.data() + text.size()) break;
    return BadInput({.file = path,
                     .line = line,
                     .found = std::string(piece.substr(0, 40)),
                     .expected = expected});
  }
  return out;
}

std::optional<json> ParseObject(std::string_view line) {
  json value = json::parse(line, nullptr, false);
  return value.is_object() ? std::make_optional(std::move(value))
                           : std::nullopt;
}

absl::StatusOr<std::vector<json>> ReadObjects(const std::string& path) {
  return ReadLines(path, ParseObject, "one JSON object a line");
}

// Files of `folder` with `suffix`, sorted; none when there is no folder.
std::vector<std::string> FilesIn(const std::string& folder,
                                 const std::string& suffix) {
  std::vector<std::string> out;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(folder, ec))
    if (absl::EndsWith(entry.path().filename().string(), suffix))
      out.push_back(entry.path().string());
  std::sort(out.begin(), out.end());
  return out;
}

absl::Status ReadSteps(const RunFolder& folder, RunData& run) {
  std::map<uint32_t, StepRow> steps;
  for (const bool main : {true, false}) {
    const std::string path = main ? folder.metrics() : folder.timings();
    if (!main && !fs::exists(path)) continue;
    ATOD_ASSIGN_OR_RETURN(
        const std::vector<RecordedStep> lines,
        ReadLines(path, ReadStepLine, "the numbers of a step"));
    for (const RecordedStep& line : lines) {
      if (!main && !steps.contains(line.step)) continue;
      if (main && steps.contains(line.step)) ++run.repeated_steps;
      StepRow& row = steps[line.step];
      row.step = line.step;
      if (line.time > 0) row.scalars["time"] = line.time;
      for (const auto& [tag, value] : line.scalars)
        if (std::isfinite(value)) row.scalars[tag] = value;
    }
  }
  for (auto& [step, row] : steps) run.steps.push_back(std::move(row));
  return absl::OkStatus();
}

// `panel-*.jsonl` says task and turns, files of `atod eval` task_id and length.
struct Games {
  std::vector<Game> played, left_out;
};
absl::StatusOr<Games> ReadGames(const std::string& path) {
  ATOD_ASSIGN_OR_RETURN(const std::vector<json> lines, ReadObjects(path));
  Games games;
  size_t place = 0;
  for (const json& line : lines) {
    Game game;
    game.panel = TextAt(line, "panel");
    game.task = TextAt(line, line.contains("task") ? "task" : "task_id");
    game.category = TextAt(line, "category");
    game.place = place++;
    if (line.contains("error")) {
      game.error = TextAt(line, "error");
      games.left_out.push_back(std::move(game));
      continue;
    }
    const auto success = line.find("success");
    if (success == line.end() || !success->is_boolean()) {
      return BadInput({.file = path,
                       .field = "success",
                       .line = static_cast<int64_t>(place),
                       .found = JsonPreview(line),
                       .expected = "true or false of one game"});
    }
    game.success = success->get<bool>();
    game.turns = NumberAt(line, line.contains("turns") ? "turns" : "length");
    games.played.push_back(std::move(game));
  }
  return games;
}

absl::Status ReadEvals(const RunFolder& folder, RunData& run) {
  for (const std::string& path : FilesIn(folder.evals(), ".jsonl")) {
    ATOD_ASSIGN_OR_RETURN(Games games, ReadGames(path));
    if (games.played.empty()) continue;
    const std::string stem = fs::path(path).stem().string();
    uint32_t step = 0;
    if (absl::StartsWith(stem, "panel-") &&
        absl::SimpleAtoi(stem.substr(6), &step)) {
      run.panel.push_back(
          {step, std::move(games.played), std::move(games.left_out)});
      continue;
    }
    const size_t dash = stem.rfind('-');
    if (dash == std::string::npos) continue;
    run.evals.push_back({stem.substr(0, dash), stem.substr(dash + 1),
                         std::move(games.played), std::move(games.left_out)});
  }
  return absl::OkStatus();
}

absl::Status ReadDiagnoses(const RunFolder& folder, RunData& run) {
  for (const std::string& path : FilesIn(folder.diagnoses(), ".jsonl")) {
    ATOD_ASSIGN_OR_RETURN(const std::vector<json> lines, ReadObjects(path));
    DiagnosisFile file;
    file.name = fs::path(path).stem().string();
    for (const json& line : lines) {
      if (!line.contains("turn")) {
        file.description = absl::StrFormat(
            "%s: %g games of %s at T = %g, success %.1f %%, %.1f turns",
            TextAt(line, "model"), NumberAt(line, "games"),
            TextAt(line, "split"), NumberAt(line, "temperature"),
            100 * NumberAt(line, "success_rate"), NumberAt(line, "length"));
        continue;
      }
      file.turns.push_back({NumberAt(line, "turn"), NumberAt(line, "samples"),
                            NumberAt(line, "d"), NumberAt(line, "d_stderr"),
                            NumberAt(line, "h"), NumberAt(line, "h_stderr"),
                            NumberAt(line, "w"), NumberAt(line, "w_stderr")});
    }
    run.diagnoses.push_back(std::move(file));
  }
  std::stable_partition(run.diagnoses.begin(), run.diagnoses.end(),
                        [](const DiagnosisFile& file) {
                          return absl::StartsWith(file.name, "before") ||
                                 absl::StartsWith(file.name, "untrained");
                        });
  return absl::OkStatus();
}

absl::Status ReadPreparation(const RunFolder& folder, RunData& run) {
  const std::string seconds = folder.preparation();
  if (fs::exists(seconds)) {
    ATOD_ASSIGN_OR_RETURN(const std::string text, ReadFile(seconds));
    ATOD_ASSIGN_OR_RETURN(const json object, ParseJson(text, seconds));
    run.cores = NumberAt(object, "cores");
    run.prepare_seconds = NumberAt(object, "prepare");
  }
  const std::string games = folder.games();
  if (!fs::exists(games)) return absl::OkStatus();
  ATOD_ASSIGN_OR_RETURN(run.games, ReadFile(games));
  return absl::OkStatus();
}

// --- The turns that trained.

double OrZero(double value) { return std::isfinite(value) ? value : 0; }

TurnColumn ColumnOf(uint32_t step,
                    const std::vector<StoredAdvantages>& stored) {
  TurnColumn column{step, {}};
  for (const StoredAdvantages& trajectory : stored) {
    for (const StoredTurn& turn : trajectory.turns) {
      // A turn without tokens has no log-probs to weigh.
      if (turn.advantages.empty()) continue;
      if (column.turns.size() <= turn.index)
        column.turns.resize(turn.index + 1);
      TurnCell& cell = column.turns[turn.index];
      ++cell.samples;
      cell.d += OrZero(turn.d);
      cell.h += OrZero(turn.h);
      cell.w += OrZero(turn.w);
    }
  }
  for (TurnCell& cell : column.turns) {
    if (cell.samples == 0) continue;
    cell.d /= cell.samples;
    cell.h /= cell.samples;
    cell.w /= cell.samples;
  }
  return column;
}

// Largest minus smallest d of the turns.
double SpreadOfD(const StoredAdvantages& stored) {
  double low = INFINITY, high = -INFINITY;
  for (const StoredTurn& turn : stored.turns) {
    low = std::min(low, OrZero(turn.d));
    high = std::max(high, OrZero(turn.d));
  }
  return high > low ? high - low : 0;
}

ShownTrajectory Show(const v1::Trajectory& t, const StoredAdvantages& stored,
                     const Tokenizer* tokenizer) {
  ShownTrajectory shown;
  shown.step = t.id().step();
  shown.id = stored.id;
  shown.task = t.task().task_id();
  shown.category = t.task().category();
  shown.done = v1::DoneReason_Name(t.outcome().done_reason());
  shown.worker = t.worker();
  shown.success = t.outcome().success();
  shown.reward = t.outcome().reward();
  shown.grpo_advantage = OrZero(stored.grpo_advantage);
  std::map<uint32_t, const StoredTurn*> by_turn;
  for (const StoredTurn& turn : stored.turns) by_turn[turn.index] = &turn;
  std::map<uint32_t, std::vector<int32_t>> tokens;
  for (const v1::Sequence& s : t.sequences())
    for (const v1::Span& span : s.spans())
      for (uint32_t i = 0; i < span.length(); ++i)
        if (span.begin() + i < static_cast<uint32_t>(s.tokens_size()))
          tokens[span.turn()].push_back(
              static_cast<int32_t>(s.tokens(span.begin() + i)));
  for (const v1::Turn& turn : t.turns()) {
    ShownTurn& out = shown.turns.emplace_back();
    out.index = turn.index();
    out.trainable = turn.trainable();
    out.valid = turn.valid();
    out.admissible = turn.admissible();
    out.observation = turn.observation();
    out.text = turn.action_text();
    out.action = turn.executed_action();
    const auto it = by_turn.find(turn.index());
    if (it == by_turn.end()) continue;
    out.weighed = true;
    out.d = OrZero(it->second->d);
    out.h = OrZero(it->second->h);
    out.w = OrZero(it->second->w);
    const std::vector<double>& values = it->second->advantages;
    const std::vector<int32_t>& ids = tokens[turn.index()];
    for (size_t i = 0; i < values.size(); ++i) {
      ShownToken& token = out.tokens.emplace_back();
      token.advantage = OrZero(values[i]);
      if (tokenizer != nullptr && i < ids.size())
        token.text = tokenizer->Decode({ids[i]});
    }
  }
  return shown;
}

// A success and a failure of one step: those whose turns differ most in d.
void SelectTrajectories(const std::string& path,
                        const std::vector<StoredAdvantages>& stored,
                        const Tokenizer* tokenizer, RunData& run) {
  std::map<std::string, const StoredAdvantages*> by_id;
  for (const StoredAdvantages& trajectory : stored)
    by_id[trajectory.id] = &trajectory;
  std::optional<ShownTrajectory> best[2];
  double spread[2] = {-1, -1};
  const auto weigh = [&](const v1::Trajectory& t) {
    for (const v1::Sequence& s : t.sequences())
      for (const v1::Span& span : s.spans())
        for (const v1::TeacherScores& scores : span.teacher())
          run.teacher_hash = scores.weights_hash();
    const auto computed = by_id.find(learner::FormatId(learner::IdOf(t)));
    if (computed == by_id.end()) return;
    const int won = t.outcome().success() ? 1 : 0;
    const double d = SpreadOfD(*computed->second);
    if (d <= spread[won]) return;
    spread[won] = d;
    best[won] = Show(t, *computed->second, tokenizer);
  };
  if (const absl::Status read = learner::SalvageTrajectories(path, weigh);
      !read.ok())
    run.damage.emplace_back(read.message());
  for (auto& shown : best)
    if (shown.has_value()) run.trajectories.push_back(*std::move(shown));
}

// Names the steps that trained on trajectories that are not there. What a fork
// took over is in its parent's spool.
absl::Status FindMissing(const RunFolder& folder,
                         const std::vector<uint32_t>& stored, RunData& run) {
  ATOD_ASSIGN_OR_RETURN(const learner::ForkOrigin origin,
                        learner::ReadForkOrigin(folder));
  std::vector<uint32_t> missing;
  for (const StepRow& row : run.steps)
    if (row.step > origin.step &&
        !std::binary_search(stored.begin(), stored.end(), row.step))
      missing.push_back(row.step);
  if (!missing.empty())
    run.damage.push_back(
        absl::StrCat(folder.spool(), ": no trajectories of ", Steps(missing)));
  return absl::OkStatus();
}

absl::Status ReadTurns(const RunFolder& folder, RunData& run) {
  const std::string dir = folder.spool();
  if (!fs::is_directory(dir)) return absl::OkStatus();
  ATOD_ASSIGN_OR_RETURN(const std::vector<uint32_t> stored,
                        learner::StoredSteps(dir, v1::TRAIN));
  ATOD_RETURN_IF_ERROR(FindMissing(folder, stored, run));
  std::vector<uint32_t> steps;
  for (const uint32_t step : stored)
    if (fs::exists(learner::AdvantageFile(dir, step))) steps.push_back(step);
  run.recorded_columns = steps.size();
  const std::vector<uint32_t> shown = Spread(steps, 3);
  std::unique_ptr<Tokenizer> tokenizer;
  for (const std::string& model :
       {folder.last().model(), run.key("model.path")}) {
    if (tokenizer != nullptr || !fs::exists(model + "/tokenizer.json"))
      continue;
    absl::StatusOr<std::unique_ptr<Tokenizer>> loaded = Tokenizer::Load(model);
    if (loaded.ok()) tokenizer = *std::move(loaded);
  }
  const std::vector<uint32_t> columns = Spread(steps, kMaxColumns);
  std::set<uint32_t> all(columns.begin(), columns.end());
  all.insert(shown.begin(), shown.end());
  for (const uint32_t step : all) {
    ATOD_ASSIGN_OR_RETURN(
        const std::vector<StoredAdvantages> stored,
        learner::ReadAdvantages(learner::AdvantageFile(dir, step)));
    run.columns.push_back(ColumnOf(step, stored));
    if (std::binary_search(shown.begin(), shown.end(), step)) {
      SelectTrajectories(learner::TrajectoryFile(dir, v1::TRAIN, step), stored,
                         tokenizer.get(), run);
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::optional<double> StepRow::value(const std::string& tag) const {
  const auto it = scalars.find(tag);
  if (it == scalars.end()) return std::nullopt;
  return it->second;
}

double PanelEval::success_rate() const {
  double wins = 0;
  for (const Game& g : games) wins += g.success;
  return wins / static_cast<double>(games.size());
}

double PanelEval::turns() const {
  double sum = 0;
  for (const Game& g : games) sum += g.turns;
  return sum / static_cast<double>(games.size());
}

bool RunData::has_teacher() const {
  if (!series("hybrid/teacher_gap_abs_mean").empty()) return true;
  for (const TurnColumn& column : columns)
    for (const TurnCell& cell : column.turns)
      if (cell.d != 0) return true;
  return false;
}

std::string RunData::key(const std::string& path,
                         const std::string& otherwise) const {
  const auto it = config.find(path);
  return it == config.end() ? otherwise : it->second;
}

double RunData::number(const std::string& path, double otherwise) const {
  double value = 0;
  return absl::SimpleAtod(key(path), &value) ? value : otherwise;
}

std::vector<std::pair<double, double>> RunData::series(
    const std::string& tag) const {
  std::vector<std::pair<double, double>> out;
  for (const StepRow& row : steps)
    if (const auto value = row.value(tag)) out.emplace_back(row.step, *value);
  return out;
}

absl::StatusOr<std::map<std::string, std::string>> FlattenConfig(
    const std::string& yaml, const std::string& path) {
  std::map<std::string, std::string> out;
  const std::function<void(const YAML::Node&, const std::string&)> walk =
      [&](const YAML::Node& node, const std::string& key) {
        const std::string prefix = key.empty() ? "" : key + ".";
        if (node.IsMap()) {
          for (const auto& member : node)
            walk(member.second, prefix + member.first.Scalar());
        } else if (node.IsSequence()) {
          for (size_t i = 0; i < node.size(); ++i)
            walk(node[i], absl::StrCat(prefix, i));
        } else {
          out[key] = node.Scalar();
        }
      };
  try {
    walk(YAML::Load(yaml), "");
  } catch (const YAML::Exception& e) {
    return BadInput({.file = path,
                     .line = e.mark.line + 1,
                     .found = e.msg,
                     .expected = "YAML"});
  }
  return out;
}

std::string Steps(const std::vector<uint32_t>& steps) {
  constexpr size_t kMost = 8;
  const std::vector<uint32_t> shown(
      steps.begin(), steps.begin() + std::min(steps.size(), kMost));
  return absl::StrCat(
      steps.size() == 1 ? "step " : "steps ", absl::StrJoin(shown, ", "),
      steps.size() > kMost ? absl::StrCat(" (", steps.size(), " in all)") : "");
}

std::vector<uint32_t> Spread(const std::vector<uint32_t>& steps, size_t most) {
  if (steps.size() <= most || most < 2) return steps;
  std::vector<uint32_t> out;
  for (size_t i = 0; i < most; ++i)
    out.push_back(steps[i * (steps.size() - 1) / (most - 1)]);
  return out;
}

absl::StatusOr<RunData> ReadRun(const std::string& dir) {
  RunData run;
  const RunFolder folder(dir);
  run.dir = folder.dir();
  if (!fs::is_directory(run.dir) || !fs::exists(folder.metrics())) {
    return BadInput({.file = dir,
                     .field = "RUN",
                     .found = !fs::exists(run.dir)        ? "nothing"
                              : fs::is_directory(run.dir) ? "no metrics.jsonl"
                                                          : "a file",
                     .expected = "the folder of a run"});
  }
  run.name = fs::path(run.dir).filename().string();
  if (fs::exists(folder.config())) {
    ATOD_ASSIGN_OR_RETURN(const std::string yaml, ReadFile(folder.config()));
    ATOD_ASSIGN_OR_RETURN(run.config, FlattenConfig(yaml, folder.config()));
    run.name = run.key("name", run.name);
  }
  ATOD_RETURN_IF_ERROR(ReadSteps(folder, run));
  if (run.steps.empty()) {
    return BadInput({.file = folder.metrics(),
                     .found = "no step",
                     .expected = "a run that has recorded one"});
  }
  ATOD_RETURN_IF_ERROR(ReadEvals(folder, run));
  ATOD_RETURN_IF_ERROR(ReadDiagnoses(folder, run));
  ATOD_RETURN_IF_ERROR(ReadPreparation(folder, run));
  ATOD_RETURN_IF_ERROR(ReadTurns(folder, run));
  return run;
}

}  // namespace atod::report

#include "services/learner/advantage_file.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/file.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"

namespace atod::learner {
namespace {

using nlohmann::json;

constexpr double kMaxTurn = 100000;

double Number(const json& value) {
  return value.is_number() ? value.get<double>() : NAN;
}

double Number(const json& object, const char* key) {
  const auto it = object.find(key);
  return it == object.end() ? NAN : Number(*it);
}

StoredTurn TurnOf(uint32_t index, const json& object) {
  StoredTurn turn;
  turn.index = index;
  turn.d = Number(object, "d");
  turn.h = Number(object, "h");
  turn.w = Number(object, "w");
  const auto advantages = object.find("advantages");
  if (advantages != object.end() && advantages->is_array())
    for (const json& a : *advantages) turn.advantages.push_back(Number(a));
  return turn;
}

}  // namespace

absl::Status WriteAdvantages(const std::string& path, const StepBatch& b,
                             const Advantages& a,
                             const std::vector<std::vector<int32_t>>& updates) {
  std::vector<int> update_of(b.num_trajectories(), -1);
  for (size_t u = 0; u < updates.size(); ++u)
    for (const int32_t row : updates[u]) update_of[row] = static_cast<int>(u);
  std::string out;
  for (int i = 0; i < b.num_trajectories(); ++i) {
    nlohmann::ordered_json line;
    line["id"] = b.trajectory_id[i];
    line["update"] = update_of[i];
    line["reward"] = b.reward[i];
    line["shaped_reward"] = a.shaped_reward[i];
    line["grpo_advantage"] = a.grpo[i];
    line["turns"] = nlohmann::ordered_json::array();
    for (int k = b.turn_begin[i]; k < b.turn_begin[i + 1]; ++k) {
      // Duplicated rows stand behind the turns and say nothing new.
      if (k > b.turn_begin[i] && b.turn_index[k] <= b.turn_index[k - 1]) break;
      const auto slice = [&](const std::vector<double>& column) {
        return std::vector<double>(column.begin() + b.token_begin[k],
                                   column.begin() + b.token_begin[k + 1]);
      };
      nlohmann::ordered_json turn;
      turn["index"] = b.turn_index[k];
      turn["d"] = a.d[k];
      turn["h"] = a.h[k];
      turn["d_norm"] = a.d_norm[k];
      turn["h_norm"] = a.h_norm[k];
      turn["w"] = a.w[k];
      turn["old_logprobs"] = slice(b.old_logprob);
      turn["advantages"] = slice(a.advantage);
      line["turns"].push_back(std::move(turn));
    }
    absl::StrAppend(&out, line.dump(), "\n");
  }
  return WriteFileAtomic(path, out);
}

absl::StatusOr<std::vector<StoredAdvantages>> ReadAdvantages(
    const std::string& path) {
  ATOD_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  std::vector<StoredAdvantages> out;
  int64_t line = 0;
  for (const absl::string_view piece : absl::StrSplit(text, '\n')) {
    ++line;
    if (piece.empty()) continue;
    const json object =
        json::parse(piece.begin(), piece.end(), nullptr, /*exceptions=*/false);
    const json id = object.is_object() ? object.value("id", json()) : json();
    const json turns =
        object.is_object() ? object.value("turns", json()) : json();
    if (!id.is_string() || !turns.is_array()) {
      return BadInput({.file = path,
                       .line = line,
                       .found = std::string(piece.substr(0, 40)),
                       .expected = "a trajectory's id and turns"});
    }
    StoredAdvantages& stored = out.emplace_back();
    stored.id = id.get<std::string>();
    stored.update = Number(object, "update");
    stored.grpo_advantage = Number(object, "grpo_advantage");
    for (const json& turn : turns) {
      const double index = turn.is_object() ? Number(turn, "index") : NAN;
      if (index >= 0 && index <= kMaxTurn)
        stored.turns.push_back(TurnOf(static_cast<uint32_t>(index), turn));
    }
  }
  return out;
}

}  // namespace atod::learner

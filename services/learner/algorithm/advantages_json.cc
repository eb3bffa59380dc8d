#include "services/learner/algorithm/advantages_json.h"

#include <cmath>
#include <cstdint>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/json.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/device/cpu_device.h"
#include "nlohmann/json.hpp"
#include "services/learner/algorithm/advantages.h"
#include "services/learner/algorithm/duplicate_rows.h"
#include "services/learner/algorithm/token_weights.h"
#include "services/learner/algorithm/update_loss.h"

namespace atod::learner {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

// The batch file as columns, in the file's order.
struct BatchFile {
  StepBatch batch;
  std::vector<std::string> group_name;  // [trajectories]
  std::vector<double> current_logprob;  // [tokens], or empty
};

// Reads one batch; every error names the path of the JSON field.
class BatchReader {
 public:
  explicit BatchReader(std::string file) : file_(std::move(file)) {}

  absl::StatusOr<BatchFile> Read(const std::string& text) {
    ATOD_ASSIGN_OR_RETURN(const json root, ParseJson(text, file_));
    ATOD_ASSIGN_OR_RETURN(const json* list,
                          Member(root, "", "trajectories", "a list"));
    if (!list->is_array()) return WrongValue("trajectories", *list, "a list");
    ATOD_RETURN_IF_ERROR(CheckKeys(root, {"trajectories"}, file_));
    for (size_t i = 0; i < list->size(); ++i) {
      ATOD_RETURN_IF_ERROR(
          ReadTrajectory((*list)[i], absl::StrCat("trajectories[", i, "]")));
    }
    out_.batch.rollout_logprob = out_.batch.old_logprob;
    return std::move(out_);
  }

 private:
  // Whether a column that a file may leave out is there. All turns agree.
  enum class Presence { kUnknown, kPresent, kAbsent };

  absl::Status Wrong(const std::string& field, const std::string& found,
                     const std::string& expected) const {
    return BadInput({.file = file_,
                     .field = field,
                     .line = 0,
                     .found = found,
                     .expected = expected});
  }
  absl::Status WrongValue(const std::string& field, const json& found,
                          const std::string& expected) const {
    constexpr size_t kLongest = 60;
    std::string text =
        found.dump(-1, ' ', false, json::error_handler_t::replace);
    if (text.size() > kLongest)
      text = absl::StrCat(text.substr(0, kLongest), "…");
    return Wrong(field, text, expected);
  }

  absl::StatusOr<const json*> Member(const json& object,
                                     const std::string& path,
                                     const std::string& key,
                                     const std::string& expected) const {
    if (!object.is_object())
      return WrongValue(path.empty() ? "JSON" : path, object, "an object");
    const auto it = object.find(key);
    if (it == object.end())
      return Wrong(path.empty() ? key : absl::StrCat(path, ".", key), "nothing",
                   expected);
    return &*it;
  }

  absl::Status ReadTrajectory(const json& trajectory, const std::string& path) {
    StepBatch& b = out_.batch;
    ATOD_ASSIGN_OR_RETURN(const json* id,
                          Member(trajectory, path, "id", "text"));
    if (!id->is_string()) return WrongValue(path + ".id", *id, "text");
    if (!ids_.insert(id->get<std::string>()).second)
      return WrongValue(path + ".id", *id, "an id that occurs once");
    ATOD_ASSIGN_OR_RETURN(const json* group,
                          Member(trajectory, path, "group", "text"));
    if (!group->is_string()) return WrongValue(path + ".group", *group, "text");
    ATOD_ASSIGN_OR_RETURN(const json* reward,
                          Member(trajectory, path, "reward", "a number"));
    if (!reward->is_number() || !IsReward(reward->get<double>()))
      return WrongValue(path + ".reward", *reward, kRewardText);
    ATOD_ASSIGN_OR_RETURN(const json* turns,
                          Member(trajectory, path, "turns", "a list"));
    if (!turns->is_array())
      return WrongValue(path + ".turns", *turns, "a list");

    ATOD_RETURN_IF_ERROR(
        CheckKeys(trajectory, {"id", "group", "reward", "turns"}, file_, path));

    b.trajectory_id.push_back(id->get<std::string>());
    out_.group_name.push_back(group->get<std::string>());
    b.group.push_back(groups_
                          .try_emplace(group->get<std::string>(),
                                       static_cast<int32_t>(groups_.size()))
                          .first->second);
    b.reward.push_back(reward->get<double>());
    for (size_t k = 0; k < turns->size(); ++k) {
      ATOD_RETURN_IF_ERROR(ReadTurn((*turns)[k], static_cast<int32_t>(k),
                                    absl::StrCat(path, ".turns[", k, "]")));
    }
    b.turn_begin.push_back(static_cast<int32_t>(b.turn_index.size()));
    return absl::OkStatus();
  }

  absl::Status ReadTurn(const json& turn, int32_t k, const std::string& path) {
    StepBatch& b = out_.batch;
    ATOD_ASSIGN_OR_RETURN(const json* student,
                          Member(turn, path, "student_logprobs", "a list"));
    ATOD_RETURN_IF_ERROR(
        ReadLogProbs(*student, path + ".student_logprobs", &b.old_logprob));
    const size_t tokens = b.old_logprob.size() - b.num_tokens();
    const std::pair<const char*, std::vector<double>*> columns[] = {
        {"teacher_logprobs", &b.teacher_logprob},
        {"current_logprobs", &out_.current_logprob},
        {"reference_logprobs", &b.reference_logprob},
        {"context_logprobs", &b.context_logprob}};
    for (const auto& [key, column] : columns)
      ATOD_RETURN_IF_ERROR(
          ReadOptional(turn, path, key, tokens, &presence_[key], column));
    bool valid = true;
    if (const auto it = turn.find("valid_action"); it != turn.end()) {
      if (!it->is_boolean())
        return WrongValue(path + ".valid_action", *it, "true or false");
      valid = it->get<bool>();
    }
    ATOD_RETURN_IF_ERROR(
        CheckKeys(turn,
                  {"student_logprobs", "teacher_logprobs", "current_logprobs",
                   "reference_logprobs", "context_logprobs", "valid_action"},
                  file_, path));
    b.turn_index.push_back(k);
    b.valid_action.push_back(valid);
    b.token_begin.push_back(static_cast<int32_t>(b.old_logprob.size()));
    return absl::OkStatus();
  }

  absl::Status ReadOptional(const json& turn, const std::string& path,
                            const std::string& key, size_t tokens,
                            Presence* presence, std::vector<double>* column) {
    const std::string field = absl::StrCat(path, ".", key);
    const auto it = turn.find(key);
    const Presence here =
        it == turn.end() ? Presence::kAbsent : Presence::kPresent;
    if (*presence == Presence::kUnknown) *presence = here;
    if (here != *presence)
      return Wrong(field, here == Presence::kAbsent ? "nothing" : "a list",
                   "the field in every turn or in none");
    if (here == Presence::kAbsent) return absl::OkStatus();
    const size_t before = column->size();
    ATOD_RETURN_IF_ERROR(ReadLogProbs(*it, field, column));
    if (column->size() - before != tokens)
      return Wrong(field, absl::StrCat(column->size() - before, " numbers"),
                   absl::StrCat(tokens, ", one for each student_logprob"));
    return absl::OkStatus();
  }

  absl::Status ReadLogProbs(const json& list, const std::string& field,
                            std::vector<double>* column) const {
    if (!list.is_array()) return WrongValue(field, list, "a list of numbers");
    for (size_t t = 0; t < list.size(); ++t) {
      if (!list[t].is_number() || !IsLogProb(list[t].get<double>()))
        return WrongValue(absl::StrCat(field, "[", t, "]"), list[t],
                          kLogProbText);
      column->push_back(list[t].get<double>());
    }
    return absl::OkStatus();
  }

  const std::string file_;
  BatchFile out_;
  std::set<std::string> ids_;
  std::map<std::string, int32_t> groups_;
  std::map<std::string, Presence> presence_;
};

// The loss of every token under the configured surrogate, Algorithm 1, and of
// the losses beside it that need log-probs alone.
std::vector<double> TokenLosses(const BatchFile& in, const Advantages& a,
                                const Recipe& recipe) {
  std::vector<int32_t> rows(in.batch.num_tokens());
  std::iota(rows.begin(), rows.end(), 0);
  std::vector<double> losses;
  for (const TokenTerms& x :
       LossTerms(in.batch, a, recipe, {rows, in.current_logprob, {}}))
    losses.push_back(x.surrogate.loss + recipe.aux.kl_coef * x.kl.loss +
                     recipe.aux.sdar_lambda * x.sdar.loss);
  return losses;
}

// The file as one update.
double LossOf(const BatchFile& in, const std::vector<double>& terms,
              const Recipe& recipe) {
  std::vector<int32_t> all(in.batch.num_trajectories());
  std::iota(all.begin(), all.end(), 0);
  const std::vector<double> weight =
      TokenLossWeights(in.batch, all, recipe.aggregation);
  return std::inner_product(weight.begin(), weight.end(), terms.begin(), 0.0);
}

// The file as the profile trains on it: with duplicated rows behind the turns
// of their trajectories. `turns` becomes the number of turns that the file has
// for each trajectory.
BatchFile WithDuplicates(BatchFile in, const Recipe& recipe, uint64_t seed,
                         int step, std::vector<int>* turns) {
  const StepBatch& b = in.batch;
  for (int i = 0; i < b.num_trajectories(); ++i)
    turns->push_back(b.turn_begin[i + 1] - b.turn_begin[i]);
  const std::vector<int32_t> duplicates =
      ChooseDuplicates(b, recipe.duplicate_rows_to, seed, step);
  if (duplicates.empty()) return in;
  BatchFile out;
  out.group_name = std::move(in.group_name);
  std::vector<int32_t> source;
  out.batch = DuplicateRows(b, duplicates, &source);
  for (const int32_t k : source)
    if (!in.current_logprob.empty())
      out.current_logprob.insert(
          out.current_logprob.end(),
          in.current_logprob.begin() + b.token_begin[k],
          in.current_logprob.begin() + b.token_begin[k + 1]);
  return out;
}

ordered_json OutputOf(const BatchFile& in, const std::vector<int>& file_turns,
                      const Advantages& a, const Recipe& recipe, int step) {
  ordered_json out = {{"step", step},
                      {"kl_coef", a.kl_coef},
                      {"rl_coef", a.rl_coef},
                      {"trajectories", ordered_json::array()},
                      {"metrics", a.metrics}};
  std::vector<double> terms;
  if (!in.current_logprob.empty()) {
    terms = TokenLosses(in, a, recipe);
    out["loss"] = LossOf(in, terms, recipe);
  }
  const StepBatch& b = in.batch;
  for (int i = 0; i < b.num_trajectories(); ++i) {
    ordered_json turns = ordered_json::array();
    for (int k = b.turn_begin[i]; k < b.turn_begin[i] + file_turns[i]; ++k) {
      const auto tokens = [&](const std::vector<double>& column) {
        return std::vector<double>(column.begin() + b.token_begin[k],
                                   column.begin() + b.token_begin[k + 1]);
      };
      turns.push_back({{"d", a.d[k]},
                       {"h", a.h[k]},
                       {"d_norm", a.d_norm[k]},
                       {"h_norm", a.h_norm[k]},
                       {"w", a.w[k]},
                       {"advantages", tokens(a.advantage)}});
      if (recipe.reward.statistics == Unit::kTurn ||
          recipe.reward.penalty_order == PenaltyOrder::kAfter)
        turns.back()["grpo_advantage"] = a.group_advantage[k];
      if (!a.token_w.empty()) turns.back()["token_w"] = tokens(a.token_w);
      if (!terms.empty()) turns.back()["loss_terms"] = tokens(terms);
    }
    out["trajectories"].push_back({{"id", b.trajectory_id[i]},
                                   {"group", in.group_name[i]},
                                   {"grpo_advantage", a.grpo[i]},
                                   {"turns", std::move(turns)}});
  }
  return out;
}

// The path of a number that JSON cannot hold.
std::optional<std::string> NotFinite(const ordered_json& value,
                                     const std::string& path) {
  if (value.is_number_float() && !std::isfinite(value.get<double>()))
    return path;
  if (!value.is_structured()) return std::nullopt;
  for (const auto& [key, member] : value.items()) {
    const std::string below =
        value.is_array() ? absl::StrCat(path, "[", key, "]")
                         : absl::StrCat(path, path.empty() ? "" : ".", key);
    if (auto found = NotFinite(member, below); found.has_value()) return found;
  }
  return std::nullopt;
}

}  // namespace

absl::StatusOr<std::string> AdvantagesOfJson(const std::string& text,
                                             const std::string& file,
                                             const Recipe& recipe, int step,
                                             uint64_t seed) {
  ATOD_ASSIGN_OR_RETURN(BatchFile read, BatchReader(file).Read(text));
  const auto needs = [&](double coefficient, const char* key,
                         const std::vector<double>& column) {
    return coefficient > 0 && !read.current_logprob.empty() && column.empty()
               ? BadInput({.file = file,
                           .field = key,
                           .line = 0,
                           .found = "nothing",
                           .expected = "one for each current_logprob, for the "
                                       "loss of this recipe"})
               : absl::OkStatus();
  };
  ATOD_RETURN_IF_ERROR(needs(recipe.aux.kl_coef, "reference_logprobs",
                             read.batch.reference_logprob));
  ATOD_RETURN_IF_ERROR(needs(recipe.aux.sdar_lambda, "context_logprobs",
                             read.batch.context_logprob));
  std::vector<int> turns;
  const BatchFile in =
      WithDuplicates(std::move(read), recipe, seed, step, &turns);
  const auto advantages =
      ComputeAdvantages(in.batch, recipe, recipe.At(step), *MakeCpuDevice());
  if (!advantages.ok()) return WithFile(advantages.status(), file);
  const ordered_json out = OutputOf(in, turns, *advantages, recipe, step);
  if (const std::optional<std::string> at = NotFinite(out, ""); at.has_value())
    return BadInput({.file = file,
                     .field = "result " + *at,
                     .found = "no finite number",
                     .expected = "one: log-probs are too far apart"});
  // The shortest digits that read back as the same float64.
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace atod::learner

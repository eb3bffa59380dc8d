#include <algorithm>
#include <filesystem>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/file.h"
#include "common/base/status_macros.h"
#include "nlohmann/json.hpp"
#include "services/envs/games/collection.h"

namespace atod::games {
namespace {

// Solvable games of each split in the published ALFWorld set, and by task type
// in the order of TaskType (train, valid_seen, valid_unseen).
constexpr int kPublished[kSplits] = {3553, 140, 134};
constexpr int kPublishedByType[kTaskTypes][kSplits] = {
    {790, 35, 24}, {308, 13, 18}, {650, 27, 31},
    {459, 16, 23}, {533, 25, 21}, {813, 24, 17}};

// "mean (min-max)".
std::string Spread(const std::vector<int>& values) {
  if (values.empty()) return "-";
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  return absl::StrFormat("%.1f (%d-%d)", sum / values.size(), *low, *high);
}

int Percentile(std::vector<int> values, int percent) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, values.size() * percent / 100)];
}

// Distinct first arguments of the facts "(PREDICATE id …" in a lower-case
// problem text.
size_t CountFirstArguments(const std::string& problem,
                           const std::string& predicate) {
  const std::string start = absl::StrCat("(", predicate, " ");
  std::set<std::string> ids;
  const size_t end = problem.find("(:goal");
  for (size_t at = problem.find(start); at < end;
       at = problem.find(start, at + 1)) {
    const size_t begin = at + start.size();
    ids.insert(
        problem.substr(begin, problem.find_first_of(" )", begin) - begin));
  }
  return ids.size();
}

absl::StatusOr<std::string> RecordedGames(const std::string& compat_data) {
  const std::string folder = absl::StrCat(compat_data, "/alfworld-golden");
  std::error_code ec;
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ec))
    if (entry.path().extension() == ".tw-pddl")
      files.push_back(entry.path().string());
  std::sort(files.begin(), files.end());
  std::string out;
  for (const std::string& path : files) {
    ATOD_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
    const auto json = nlohmann::json::parse(text, nullptr, false);
    if (!json.is_object() || !json.contains("pddl_problem")) continue;
    const std::string problem =
        absl::AsciiStrToLower(json["pddl_problem"].get<std::string>());
    const auto walkthrough = json.value("walkthrough", nlohmann::json());
    absl::StrAppendFormat(
        &out, "  %-56s %3d receptacles %3d objects  plan %s\n",
        std::filesystem::path(path).stem().string(),
        CountFirstArguments(problem, "receptacletype"),
        CountFirstArguments(problem, "pickupable"),
        walkthrough.is_array() ? absl::StrCat(walkthrough.size()) : "-");
  }
  return out;
}

}  // namespace

absl::StatusOr<std::string> StatisticsTable(const Manifest& manifest,
                                            const std::string& compat_data) {
  std::string out = absl::StrFormat("%-32s", "");
  for (size_t s = 0; s < kSplits; ++s)
    absl::StrAppendFormat(&out, " %22s", SplitName(static_cast<Split>(s)));
  absl::StrAppend(&out, "\n");

  std::vector<std::vector<GameRow>> splits;
  for (size_t s = 0; s < kSplits; ++s) {
    const auto it = manifest.splits.find(SplitName(static_cast<Split>(s)));
    splits.push_back(it == manifest.splits.end() ? std::vector<GameRow>()
                                                 : it->second);
  }
  const auto line = [&](const std::string& name, auto cell) {
    absl::StrAppendFormat(&out, "%-32s", name);
    for (size_t s = 0; s < kSplits; ++s)
      absl::StrAppendFormat(&out, " %22s", cell(s));
    absl::StrAppend(&out, "\n");
  };
  const auto column = [&](size_t s, int GameRow::*field) {
    std::vector<int> values;
    for (const GameRow& row : splits[s]) values.push_back(row.*field);
    return values;
  };
  line("games (ALFWorld)", [&](size_t s) {
    return absl::StrCat(splits[s].size(), " (", kPublished[s], ")");
  });
  for (size_t t = 0; t < kTaskTypes; ++t) {
    const std::string type = TaskTypeName(static_cast<TaskType>(t));
    line(absl::StrCat("  ", type), [&](size_t s) {
      const auto count = std::count_if(
          splits[s].begin(), splits[s].end(),
          [&](const GameRow& row) { return row.task_type == type; });
      return absl::StrCat(count, " (", kPublishedByType[t][s], ")");
    });
  }
  line("receptacles, mean (range)",
       [&](size_t s) { return Spread(column(s, &GameRow::receptacles)); });
  line("objects, mean (range)",
       [&](size_t s) { return Spread(column(s, &GameRow::objects)); });
  line("plan length, mean (range)",
       [&](size_t s) { return Spread(column(s, &GameRow::plan)); });
  line("expert turns, mean (range)",
       [&](size_t s) { return Spread(column(s, &GameRow::turns)); });
  line("plan length, median / 90 %", [&](size_t s) {
    const std::vector<int> plan = column(s, &GameRow::plan);
    return absl::StrCat(Percentile(plan, 50), " / ", Percentile(plan, 90));
  });
  absl::StrAppend(&out, "unseen layouts with furniture no train layout has: ",
                  manifest.layouts_new_to_train, "\n");
  if (!compat_data.empty()) {
    ATOD_ASSIGN_OR_RETURN(const std::string recorded,
                          RecordedGames(compat_data));
    if (!recorded.empty())
      absl::StrAppend(&out, "recorded games of other sources, counted now:\n",
                      recorded);
  }
  return out;
}

}  // namespace atod::games

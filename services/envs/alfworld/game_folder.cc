#include "services/envs/alfworld/game_folder.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/printable.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"

namespace atod::envs {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr char kExtension[] = ".tw-pddl";
constexpr char kRecord[] = "traj_data.json";
constexpr char kFlatSplit[] = "games";
constexpr char kOtherCategory[] = "other";

bool IsTaskType(std::string_view text) {
  return std::find(std::begin(kTaskTypes), std::end(kTaskTypes), text) !=
         std::end(kTaskTypes);
}

absl::StatusOr<Json> ReadObject(const std::string& path,
                                std::string_view bytes) {
  if (bytes.empty()) return BadInput({path, "", 0, "an empty file", "JSON"});
  ATOD_ASSIGN_OR_RETURN(Json json, ParseJson(bytes, path));
  if (!json.is_object())
    return BadInput({path, "", 0, "other JSON", "one JSON object"});
  return json;
}

// A text at `key`; null when there is none.
const std::string* TextAt(const Json& object, std::string_view key) {
  const auto it = object.find(key);
  return it == object.end() ? nullptr : it->get_ptr<const std::string*>();
}

// Why ALFWorld's own rule does not use the game that lies beside `record`;
// empty when it does, and then the category is the record's.
absl::StatusOr<std::string> UnusedBecause(const std::string& record,
                                          FoundGame& game) {
  ATOD_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(record));
  ATOD_ASSIGN_OR_RETURN(const Json json, ReadObject(record, bytes));
  const std::string* type = TextAt(json, "task_type");
  if (type == nullptr || !IsTaskType(*type))
    return absl::StrCat(
        "task_type of ", kRecord, " is ",
        type == nullptr ? "missing" : absl::StrCat("'", OneLine(*type), "'"),
        ", none of ALFWorld's six");
  game.category = *type;
  if (!game.solvable.has_value()) return std::string("solvable is missing");
  for (const std::string_view word : {"movable", "Sliced"})
    if (game.task_id.find(word) != std::string::npos)
      return absl::StrCat("'", std::string(word), "' in its path");
  return std::string();
}

class FolderSearch {
 public:
  explicit FolderSearch(const std::string& root) : root_(root) {}

  absl::StatusOr<GameFolder> Run() {
    std::error_code error;
    real_root_ = fs::canonical(root_, error);
    std::vector<fs::path> entries;
    if (!error) entries = Entries(real_root_, error);
    if (error)
      return BadInput({root_, "env.data", 0, error.message(),
                       "a folder of *.tw-pddl games"});
    std::vector<fs::path> links;
    for (const fs::path& entry : entries) {
      const fs::path path = fs::path(root_) / entry;
      if (path.extension() == kExtension && fs::is_directory(path, error))
        LeaveOut(kFlatSplit, path, "a folder, no file");
      else if (fs::is_symlink(path, error))
        links.push_back(path);
      else if (fs::is_directory(path, error))
        Split(path, fs::canonical(path, error));
      else
        File(kFlatSplit, path, real_root_, false);
    }
    // What is there itself comes before links to it.
    for (const fs::path& link : links) Link(link);
    // A link to a game waits for the game itself.
    for (const Pending& p : pending_) Take(p.split, p.path, p.task_id);
    std::sort(found_.games.begin(), found_.games.end(),
              [](const auto& a, const auto& b) { return a.path < b.path; });
    std::sort(found_.left_out.begin(), found_.left_out.end(),
              [](const auto& a, const auto& b) { return a.path < b.path; });
    return std::move(found_);
  }

 private:
  struct Pending {
    std::string split, task_id;
    fs::path path;
  };

  // Names, sorted, so that of two links the same one wins everywhere.
  static std::vector<fs::path> Entries(const fs::path& dir,
                                       std::error_code& error) {
    std::vector<fs::path> out;
    fs::directory_iterator it(dir, error);
    for (; !error && it != fs::directory_iterator(); it.increment(error))
      out.push_back(it->path().filename());
    std::sort(out.begin(), out.end());
    return out;
  }

  static bool Hidden(const fs::path& path) {
    return path.filename().native().front() == '.';
  }
  static bool Inside(const fs::path& path, const fs::path& folder) {
    const auto [end, rest] =
        std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
    return end == folder.end();
  }

  void LeaveOut(const std::string& split, const fs::path& path,
                std::string reason) {
    found_.left_out.push_back({OneLine(split), Below(path), std::move(reason)});
  }
  std::string Below(const fs::path& path) const {
    return OneLine(path.lexically_relative(root_).native());
  }

  // What is wrong, without the path that is named anyway.
  static std::string Fault(const absl::Status& status, const fs::path& path) {
    std::string text(status.message());
    for (const std::string& known : {path.native() + ": ", path.native() + ":",
                                     path.parent_path().native() + "/"}) {
      if (text.rfind(known, 0) != 0) continue;
      text.erase(0, known.size());
      // What is left of FILE:LINE.
      return absl::StrCat(known.ends_with(':') ? "line " : "", text);
    }
    return text;
  }

  void Link(const fs::path& link) {
    std::error_code error;
    const fs::path target = fs::canonical(link, error);
    if (error) {
      if (link.extension() == kExtension)
        LeaveOut(kFlatSplit, link, "a link to nothing");
      return;
    }
    if (!fs::is_directory(target, error))
      return File(kFlatSplit, link, real_root_, true);
    if (Inside(target, real_root_) || Inside(real_root_, target))
      return LeaveOut(link.filename().string(), link,
                      "a link to a folder whose games are in their own split");
    Split(link, target);
  }

  void Split(const fs::path& dir, const fs::path& real) {
    Folder(dir.filename().string(), dir, dir, real, Hidden(dir));
  }

  void Folder(const std::string& split, const fs::path& top,
              const fs::path& dir, const fs::path& real, bool hidden) {
    std::error_code error;
    const std::vector<fs::path> entries = Entries(dir, error);
    if (error) LeaveOut(split, dir, error.message());
    for (const fs::path& entry : entries) {
      const fs::path path = dir / entry;
      const bool link = fs::is_symlink(path, error);
      if (!fs::is_directory(path, error)) {
        if (hidden && path.extension() == kExtension)
          LeaveOut(split, path, "in a hidden folder");
        else
          File(split, path, real, link, &top);
      } else if (path.extension() == kExtension) {
        LeaveOut(split, path, "a folder, no file");
      } else if (!link) {
        Folder(split, top, path, real, hidden || Hidden(path));
      } else if (!Inside(fs::canonical(path, error), real)) {
        LeaveOut(split, path, "a link that leads out of the split");
      }  // else: its games are found where they are
    }
  }

  // `real`: where a link may lead.
  void File(const std::string& split, const fs::path& path,
            const fs::path& real, bool link, const fs::path* top = nullptr) {
    if (path.extension() != kExtension) return;
    std::error_code error;
    if (Hidden(path)) return LeaveOut(split, path, "a hidden file");
    if (!fs::is_regular_file(path, error))
      return LeaveOut(split, path,
                      link ? "a link to nothing" : "no regular file");
    if (link && !Inside(fs::canonical(path, error), real))
      return LeaveOut(split, path, "a link that leads out of the split");
    fs::path below =
        top ? path.lexically_relative(*top) : fs::path(path.filename());
    const std::string task_id = below.replace_extension("").generic_string();
    // No more than printable text may travel as an id.
    if (OneLine(task_id) != task_id || OneLine(split) != split)
      return LeaveOut(split, path, "a name with bytes that are no UTF-8 text");
    if (link)
      pending_.push_back({split, task_id, path});
    else
      Take(split, path, task_id);
  }

  void Take(const std::string& split, const fs::path& path,
            const std::string& task_id) {
    struct stat s {};
    if (stat(path.c_str(), &s) != 0)
      return LeaveOut(split, path,
                      std::string(absl::ErrnoToStatus(errno, "").message()));
    const auto [it, fresh] =
        seen_.try_emplace({s.st_dev, s.st_ino}, path.native());
    if (!fresh)
      return LeaveOut(split, path,
                      absl::StrCat("the same file as ", OneLine(it->second)));
    const auto [same, first] =
        ids_.try_emplace({split, task_id}, path.native());
    if (!first)
      return LeaveOut(split, path,
                      absl::StrCat("the same task as ", OneLine(same->second)));
    absl::StatusOr<FoundGame> game = InspectGame(path.native(), task_id);
    if (!game.ok()) return LeaveOut(split, path, Fault(game.status(), path));
    if (game->solvable == false)
      return LeaveOut(split, path, "not solvable, as it says itself");
    const std::string record = (path.parent_path() / kRecord).native();
    std::error_code error;
    if (fs::exists(record, error)) {
      const absl::StatusOr<std::string> unused = UnusedBecause(record, *game);
      const std::string reason =
          unused.ok() ? *unused : Fault(unused.status(), path);
      if (!reason.empty()) return LeaveOut(split, path, reason);
    }
    game->split = split;
    found_.games.push_back(*std::move(game));
  }

  const std::string root_;
  fs::path real_root_;
  GameFolder found_;
  std::vector<Pending> pending_;
  std::map<std::pair<dev_t, ino_t>, std::string> seen_;
  std::map<std::pair<std::string, std::string>, std::string> ids_;
};

}  // namespace

absl::StatusOr<FoundGame> InspectGame(const std::string& path,
                                      const std::string& task_id) {
  ATOD_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
  ATOD_ASSIGN_OR_RETURN(const Json json, ReadObject(path, bytes));
  for (const char* text : {"pddl_domain", "grammar", "pddl_problem"})
    if (TextAt(json, text) == nullptr)
      return BadInput({path, text, 0, "nothing", "a string"});
  FoundGame game;
  game.task_id = task_id;
  game.path = path;
  game.content_hash = HashHex(bytes);
  const auto solvable = json.find("solvable");
  if (solvable != json.end() && solvable->is_boolean())
    game.solvable = solvable->get<bool>();
  for (const std::string_view type : kTaskTypes)
    if (task_id.find(type) != std::string::npos) {
      game.category = std::string(type);
      return game;
    }
  const std::string* type = TextAt(json, "task_type");
  game.category =
      type == nullptr || type->empty() ? kOtherCategory : OneLine(*type);
  return game;
}

absl::StatusOr<GameFolder> FindGames(const std::string& data) {
  std::error_code error;
  if (!fs::is_regular_file(data, error)) return FolderSearch(data).Run();
  ATOD_ASSIGN_OR_RETURN(FoundGame game,
                        InspectGame(data, fs::path(data).stem().string()));
  game.split = kFlatSplit;
  GameFolder one;
  one.games.push_back(std::move(game));
  return one;
}

}  // namespace atod::envs

#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace atod::envs {

// What an agent knows from what it has read so far, as the named fields of an
// observation (PromptSpec {field.NAME}):
//   holding    what is in hand, "hot ", "cool " or "clean " before what was
//              heated, cooled or cleaned last
//   checked    receptacles whose contents it saw, in that order; forgotten
//              when something was taken or moved, and when all were checked
//   unchecked  the other receptacles of the opening text, in its order
//   recent     the last two commands
//   text       the last feedback; "start." at first
// Empty fields say "nothing". In every field "word 1" becomes "word* 1" when
// the task sentence has the word. Reads only text, never the world's state.
class AgentView {
 public:
  AgentView(std::string_view intro, std::string_view task);

  void Observe(std::string_view command, std::string_view feedback);
  std::map<std::string, std::string> Fields() const;

 private:
  void Check(std::string_view receptacle);
  std::string Mark(std::string_view text) const;
  std::string List(const std::vector<std::string>& items) const;

  std::set<std::string> task_words_;
  std::vector<std::string> receptacles_;
  std::vector<std::string> checked_;
  std::vector<std::string> recent_;
  std::map<std::string, std::string> treated_;  // object -> "hot", …
  std::string holding_;
  std::string text_ = "start.";
};

}  // namespace atod::envs

#include "services/envs/environment.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace atod::envs {

std::string LeftOutText(const EnvDescription& env, std::string_view split) {
  constexpr size_t kNamed = 3;
  size_t count = 0;
  std::string names;
  for (const LeftOut& task : env.left_out) {
    if (!split.empty() && task.split != split) continue;
    if (++count <= kNamed)
      absl::StrAppend(&names, count == 1 ? ": " : "; ", task.path, " (",
                      task.reason, ")");
  }
  // Over the wire only the first are named.
  if (split.empty()) count = std::max<size_t>(count, env.left_out_total);
  for (const SplitInfo& s : env.splits)
    if (s.name == split) count = std::max<size_t>(count, s.left_out);
  if (count == 0) return "";
  if (count > kNamed) names += "; …";
  return absl::StrCat(count, count == 1 ? " task" : " tasks", " left out",
                      names);
}

}  // namespace atod::envs

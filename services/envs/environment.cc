#include "services/envs/environment.h"

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
  if (split.empty() && env.left_out_total > count) count = env.left_out_total;
  if (count == 0) return "";
  if (count > kNamed) names += "; …";
  return absl::StrCat(count, count == 1 ? " task" : " tasks", " left out",
                      names);
}

}  // namespace atod::envs

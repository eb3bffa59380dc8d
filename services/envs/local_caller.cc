#include "services/envs/local_caller.h"

#include "absl/strings/str_cat.h"

namespace atod::envs {

absl::StatusOr<EnvDescription> LocalCaller::Describe(const std::string& env) {
  const auto it = table_.environments().find(env);
  if (it == table_.environments().end())
    return absl::NotFoundError(absl::StrCat("no environment '", env, "' here"));
  return it->second->description();
}

}  // namespace atod::envs

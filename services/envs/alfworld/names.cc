#include "services/envs/alfworld/names.h"

#include <map>

#include "absl/strings/str_cat.h"

namespace atod::envs {

std::vector<std::string> DemangledNames(const std::vector<std::string>& ids) {
  auto class_of = [](const std::string& id) -> std::string {
    const size_t bar = id.find("_bar_");
    if (bar == std::string::npos) return "";
    std::string name = id.substr(0, bar);
    if (id.find("basin") != std::string::npos) name += "basin";
    return name;
  };
  std::map<std::string, int> left;
  for (const std::string& id : ids) ++left[class_of(id)];
  std::vector<std::string> names;
  for (const std::string& id : ids) {
    const std::string name = class_of(id);
    names.push_back(name.empty() ? absl::StrCat(id, " ")
                                 : absl::StrCat(name, " ", left[name]--));
  }
  return names;
}

}  // namespace atod::envs

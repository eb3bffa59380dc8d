#include "common/base/cpus.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <optional>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/file.h"

namespace atod {
namespace {

namespace fs = std::filesystem;

constexpr double kNone = std::numeric_limits<double>::infinity();

// The numbers in a file, by blanks; "max" and a missing file are none.
std::vector<double> Numbers(const fs::path& path) {
  std::vector<double> out;
  const auto text = ReadFile(path.string());
  if (!text.ok()) return out;
  for (const auto word :
       absl::StrSplit(*text, absl::ByAnyChar(" \n"), absl::SkipEmpty())) {
    double value = 0;
    if (absl::SimpleAtod(word, &value)) out.push_back(value);
  }
  return out;
}

// Of one group: cpu.max "QUOTA PERIOD" of version 2, two files of version 1,
// where -1 is no quota.
double QuotaOf(const fs::path& group) {
  const std::vector<double> max = Numbers(group / "cpu.max");
  if (max.size() == 2 && max[1] > 0) return max[0] / max[1];
  const std::vector<double> quota = Numbers(group / "cpu.cfs_quota_us"),
                            period = Numbers(group / "cpu.cfs_period_us");
  if (quota.size() == 1 && quota[0] > 0 && period.size() == 1 && period[0] > 0)
    return quota[0] / period[0];
  return kNone;
}

}  // namespace

double CpuQuota(const std::string& root, std::string_view self) {
  double least = kNone;
  // ID:CONTROLLERS:PATH; version 2 names no controllers.
  for (const absl::string_view line :
       absl::StrSplit(absl::string_view(self.data(), self.size()), '\n')) {
    const std::vector<std::string> fields =
        absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    const std::vector<std::string> controllers = absl::StrSplit(fields[1], ',');
    const bool cpu = std::find(controllers.begin(), controllers.end(), "cpu") !=
                     controllers.end();
    if (!fields[1].empty() && !cpu) continue;
    const fs::path base = fs::path(root) / fields[1];
    // In a container the path may be the host's, which is not to be seen.
    fs::path path = fs::path(fields[2]).relative_path();
    while (true) {
      least = std::min(least, QuotaOf(base / path));
      if (path.empty()) break;
      path = path.parent_path();
    }
  }
  return least;
}

unsigned AvailableCpus() {
  cpu_set_t set;
  const double mask = sched_getaffinity(0, sizeof(set), &set) == 0
                          ? static_cast<double>(CPU_COUNT(&set))
                          : 1;
  const auto self = ReadFile("/proc/self/cgroup");
  const double quota = self.ok() ? CpuQuota("/sys/fs/cgroup", *self) : kNone;
  return static_cast<unsigned>(std::max(1.0, std::min(mask, std::ceil(quota))));
}

}  // namespace atod

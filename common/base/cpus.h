#pragma once

#include <string>
#include <string_view>

namespace atod {

// CPUs that this process may keep busy: those of its affinity mask, no more
// than the CPU quota of its control groups rounded up. At least 1.
unsigned AvailableCpus();

// The smallest CPU quota of a control group and those around it, in CPUs;
// infinity for none. `self` is the text of /proc/self/cgroup, `root` the folder
// that the hierarchies are mounted at (/sys/fs/cgroup).
double CpuQuota(const std::string& root, std::string_view self);

}  // namespace atod

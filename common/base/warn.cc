#include "common/base/warn.h"

#include <cstdio>

#include "common/base/printable.h"

namespace atod {

void LogWarning(const std::string& text) {
  std::fprintf(stderr, "warning: %s\n", OneLine(text).c_str());
}

}  // namespace atod

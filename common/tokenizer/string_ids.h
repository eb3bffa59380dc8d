#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"

namespace atod {

// Packaged abseil has a string_view of its own; this one looks up by
// std::string_view without a copy.
struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const {
    return std::hash<std::string_view>{}(text);
  }
};

using StringIds =
    absl::flat_hash_map<std::string, int32_t, StringHash, std::equal_to<>>;

}  // namespace atod

#pragma once

#include <string>
#include <string_view>

namespace atod::report {

// Text as it may stand between tags and inside double-quoted attributes. Bytes
// that are not UTF-8 become U+FFFD, control characters become spaces.
std::string Escape(std::string_view text);

// A whole page: `body` is HTML. Style and script are inside; it loads nothing.
std::string Page(std::string_view title, const std::string& body);

// Colours of the heat maps: so many steps from low to high.
inline constexpr int kHeatLevels = 16;
// Colours of lines; more lines take them again, dashed.
inline constexpr int kLineColours = 8;

}  // namespace atod::report

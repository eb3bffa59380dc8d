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
// Colours of lines, classes l0 and on (f0 and on as a fill).
inline constexpr int kLineColours = 8;
// Dash patterns of lines, classes d0 (solid) and on.
inline constexpr int kLineDashes = 4;
// Their stroke-dasharray; lines have round caps, which turn 0.1 into a dot.
inline constexpr const char* kDashes[kLineDashes] = {"none", "9 5", "0.1 5",
                                                     "9 5 0.1 5"};

}  // namespace atod::report

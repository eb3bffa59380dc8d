#pragma once

#include <string>
#include <string_view>

namespace atod {

// `text` that may have come from anywhere, fit for a terminal: control bytes
// and what is no UTF-8 become \xNN. Line ends and tabs stay.
std::string Printable(std::string_view text);

// The same on one line: line ends become blanks.
std::string OneLine(std::string_view text);

}  // namespace atod

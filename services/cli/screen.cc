#include "services/cli/screen.h"

#include <unistd.h>

#include <cstdio>

namespace atod::cli {

Screen::Screen() : terminal_(isatty(1) != 0) {}

void Screen::Line(const std::string& text) {
  Clear();
  std::printf("%s\n", text.c_str());
  std::fflush(stdout);
}

void Screen::Bottom(const std::string& text) {
  if (!terminal_) return;
  std::printf("\r\033[2K\033[2m%s\033[0m", text.c_str());
  std::fflush(stdout);
  drawn_ = true;
}

void Screen::Clear() {
  if (drawn_) std::printf("\r\033[2K");
  drawn_ = false;
}

}  // namespace atod::cli

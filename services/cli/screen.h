#pragma once

#include <string>

namespace atod::cli {

// What a person at the terminal sees of a run: a line an event or step, and on
// a terminal a last line that is drawn again and again. Not thread-safe.
class Screen {
 public:
  Screen();
  ~Screen() { Clear(); }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  void Line(const std::string& text);
  void Bottom(const std::string& text);

 private:
  void Clear();

  const bool terminal_;
  bool drawn_ = false;
};

}  // namespace atod::cli

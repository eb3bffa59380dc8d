#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace atod::cli {

// Reads what a service wants a person to know from its log: lines `warning: …`
// (LogWarning) and `error: …` (its last words). Not thread-safe.
class LogFollower {
 public:
  struct Said {
    bool error = false;
    std::string text;  // without the word, fit for a terminal
  };

  // What the file holds already was said in an earlier life.
  explicit LogFollower(std::string path);

  // What is new since the last call, complete lines only.
  std::vector<Said> Poll();

 private:
  const std::string path_;
  uint64_t offset_ = 0;
};

}  // namespace atod::cli

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

  // kEnd: what the file holds already was said in an earlier life.
  enum class From { kStart, kEnd };
  explicit LogFollower(std::string path, From from = From::kEnd);

  // What is new since the last call, complete lines only.
  std::vector<Said> Poll();

 private:
  const std::string path_;
  uint64_t offset_ = 0;
};

}  // namespace atod::cli

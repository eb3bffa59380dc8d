#include "services/cli/log_follower.h"

#include <filesystem>
#include <fstream>
#include <string_view>
#include <utility>

#include "common/base/printable.h"

namespace atod::cli {

LogFollower::LogFollower(std::string path, From from) : path_(std::move(path)) {
  if (from == From::kStart) return;
  std::error_code ec;
  const uint64_t size = std::filesystem::file_size(path_, ec);
  if (!ec) offset_ = size;
}

std::vector<LogFollower::Said> LogFollower::Poll() {
  std::vector<Said> out;
  std::ifstream in(path_, std::ios::binary);
  in.seekg(static_cast<std::streamoff>(offset_));
  for (std::string line; std::getline(in, line) && !in.eof();) {
    offset_ += line.size() + 1;
    const std::string_view view(line);
    for (const bool error : {false, true}) {
      const std::string_view word = error ? "error: " : "warning: ";
      if (view.starts_with(word))
        out.push_back({error, OneLine(view.substr(word.size()))});
    }
  }
  return out;
}

}  // namespace atod::cli

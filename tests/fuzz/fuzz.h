#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

// What libFuzzer calls.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace atod {

inline std::string_view Text(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// For what must hold whatever the input is.
inline void Require(bool good, const char* what) {
  if (good) return;
  std::fprintf(stderr, "fuzz target: %s\n", what);
  std::abort();
}

// A folder of this process, for parsers that read files.
inline const std::string& FuzzDir() {
  static const std::string dir = [] {
    const bool shm = std::filesystem::is_directory("/dev/shm");
    const std::string made = (shm ? "/dev/shm" : "/tmp") +
                             std::string("/atod_fuzz.") +
                             std::to_string(getpid());
    std::filesystem::create_directories(made);
    return made;
  }();
  static const struct Remover {
    ~Remover() {
      std::error_code ec;
      std::filesystem::remove_all(FuzzDir(), ec);
    }
  } remover;
  return dir;
}

// Writes DIR/`name` and returns its path.
inline std::string WriteInput(const std::string& name, std::string_view bytes) {
  const std::string path = FuzzDir() + "/" + name;
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return path;
}

}  // namespace atod

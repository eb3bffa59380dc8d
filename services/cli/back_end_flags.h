#pragma once

#include <cstdint>
#include <string>

#include "common/model/language_model.h"
#include "services/cli/command.h"

namespace atod::cli {

// What a command that opens a model says of how it is computed.
struct BackEndFlags {
  std::string dtype = "fp32";
  std::string device = "cpu";
  std::string deterministic;  // "true", "false", or empty: where it can be had
  uint32_t threads = 0;
};

// --dtype, --device, --deterministic and --threads.
void AddBackEndFlags(Command command, BackEndFlags& flags);

model::OpenOptions OpenOptionsOf(const BackEndFlags& flags);

// On stderr, what was taken. Once nothing can fail: an error is the only line.
void PrintBackEnd(const model::BackEnd& back_end);

}  // namespace atod::cli

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "atod/v1/config.pb.h"
#include "common/model/model_config.h"

namespace atod::cli {

// Memory of one process for its models, from shapes: libraries (a few hundred
// MB), allocators and fragmentation come on top. docs/operations.md has the
// formulas.
struct ProcessMemory {
  struct Item {
    std::string what;
    uint64_t bytes = 0;
    bool on_host = false;  // also when models run on a GPU
  };
  std::string process;
  std::vector<Item> held;    // all of it, always
  std::vector<Item> phases;  // one of them at a time
  std::string unknown;       // why nothing is known; empty: it is

  // Most bytes at a time: in host memory, and on the device when that is not
  // the CPU (`cuda`).
  uint64_t Host(bool cuda) const;
  uint64_t Device(bool cuda) const;
};

// `reference` is the recipe's reference model, or null.
ProcessMemory LearnerMemory(const v1::RunConfig& config,
                            const model::ModelConfig& student,
                            const model::ModelConfig* reference);
ProcessMemory RolloutMemory(const v1::RunConfig& config,
                            const model::ModelConfig& student);
// All teachers of the configuration live in one process.
ProcessMemory TeacherMemory(const v1::RunConfig& config,
                            const std::vector<model::ModelConfig>& teachers);

// The processes that `atod up` starts, one entry each. A model whose
// config.json cannot be read makes it unknown.
std::vector<ProcessMemory> PlanMemory(const v1::RunConfig& config);

// What a run will do, from the configuration and the config.json of its models:
// episodes, updates and tokens of a step, evaluations, memory by process and
// together, and whether this machine has as much.
std::string Plan(const v1::RunConfig& config);

// Bytes of this machine, or of its container; 0 where they are not known.
uint64_t HostMemory();

// RESOURCE_EXHAUSTED when the processes, which share a GPU, need more than its
// `there` bytes.
absl::Status CheckGpuMemory(const std::vector<ProcessMemory>& processes,
                            uint64_t there);

}  // namespace atod::cli

#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace atod {

// Names one random number of a run. The attempt (retry) of a trajectory is
// deliberately absent: a retry draws the same noise. design.md §5.4.
struct NoiseKey {
  uint64_t run_seed = 0;
  uint64_t step = 0;  // evaluation uses its own `run_seed` stream
  uint64_t group = 0;
  uint32_t sample = 0;
  uint32_t turn = 0;
  uint32_t position = 0;  // token index inside the response
};

// Uniform in (0, 1), a pure function of the key (Philox4x32-10).
double NoiseUniform(const NoiseKey& key);

// A small sequential generator (SplitMix64) for shuffles, game generation and
// initialisation. Same seed, same sequence on every platform.
class Rng {
 public:
  explicit Rng(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  // Uniform in [0, n); n > 0. Unbiased.
  uint64_t Below(uint64_t n);
  // Uniform in [0, 1) with 53 bits.
  double Uniform();
  // Standard normal (Box-Muller).
  double Normal();
  template <typename T>
  void Shuffle(std::vector<T>& v) {
    for (size_t i = v.size(); i > 1; --i) std::swap(v[i - 1], v[Below(i)]);
  }

 private:
  uint64_t state_;
};

// A well-mixed 64-bit hash of several numbers: derives child seeds.
uint64_t MixSeed(uint64_t a, uint64_t b, uint64_t c = 0, uint64_t d = 0);

}  // namespace atod

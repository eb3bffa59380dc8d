#include "common/base/rng.h"

#include <array>
#include <cmath>
#include <numbers>
#include <utility>

namespace atod {
namespace {

uint64_t Mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

using Block = std::array<uint32_t, 4>;

Block Philox(Block counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ key0,
               static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ key1,
               static_cast<uint32_t>(p0)};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

}  // namespace

double NoiseUniform(const NoiseKey& k) {
  const uint64_t stream = MixSeed(k.run_seed, k.step, k.group);
  const Block out =
      Philox({k.position, k.turn, k.sample, 0}, static_cast<uint32_t>(stream),
             static_cast<uint32_t>(stream >> 32));
  const uint64_t bits = (uint64_t{out[0]} << 32 | out[1]) >> 11;
  return (static_cast<double>(bits) + 0.5) * 0x1p-53;
}

uint64_t Rng::Next() { return Mix(state_ += 0x9e3779b97f4a7c15ull); }

uint64_t Rng::Below(uint64_t n) {
  const uint64_t limit = ~uint64_t{0} - ~uint64_t{0} % n;
  uint64_t x;
  do {
    x = Next();
  } while (x >= limit);
  return x % n;
}

double Rng::Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }

double Rng::Normal() {
  const double u = 1.0 - Uniform(), v = Uniform();
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

uint64_t MixSeed(uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
  uint64_t h = 0x9e3779b97f4a7c15ull;
  for (uint64_t x : {a, b, c, d}) h = Mix(h ^ x) + 0x9e3779b97f4a7c15ull;
  return Mix(h);
}

}  // namespace atod

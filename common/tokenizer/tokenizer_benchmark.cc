// Encoding of the texts that an agent loop sees, and of what misses every
// short cut.
#include <string>

#include "benchmark/benchmark.h"
#include "common/tokenizer/tokenizer.h"

namespace atod {
namespace {

void Run(benchmark::State& state, const std::string& dir,
         const std::string& unit) {
  const auto tokenizer = Tokenizer::Load("common/tokenizer/testdata/" + dir);
  if (!tokenizer.ok()) {
    state.SkipWithError(std::string(tokenizer.status().message()).c_str());
    return;
  }
  std::string text;
  while (text.size() < 100'000) text += unit;
  for (auto _ : state) {
    benchmark::DoNotOptimize((*tokenizer)->Encode(text));
  }
  state.SetBytesProcessed(static_cast<int64_t>(text.size()) *
                          state.iterations());
}

constexpr char kObservation[] =
    "You arrive at countertop 1. On the countertop 1, you see a apple 2, and "
    "a fork 1.\n";

void BM_QwenObservation(benchmark::State& state) {
  Run(state, "qwen2", kObservation);
}
BENCHMARK(BM_QwenObservation);

void BM_Gpt2Observation(benchmark::State& state) {
  Run(state, "gpt2", kObservation);
}
BENCHMARK(BM_Gpt2Observation);

void BM_QwenManyScripts(benchmark::State& state) {
  Run(state, "qwen2",
      "\xE4\xBB\x8A\xE5\xA4\xA9\xE5\xBE\x88\xE5\xA5\xBD caf\xC3\xA9 "
      "\xD0\xBF\xD1\x80\xD0\xBE\xD1\x81\xD1\x82\xD0\xB0\xD1\x8F 3,50 "
      "\xE2\x82\xAC \xF0\x9F\x98\x80\n");
}
BENCHMARK(BM_QwenManyScripts);

void BM_QwenOneLongWord(benchmark::State& state) { Run(state, "qwen2", "ab"); }
BENCHMARK(BM_QwenOneLongWord);

}  // namespace
}  // namespace atod

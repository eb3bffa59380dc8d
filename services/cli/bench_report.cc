#include "services/cli/bench_report.h"

#include "common/model/peak_memory.h"

namespace atod::cli {

nlohmann::json BenchReport(int64_t tokens, double seconds,
                           const model::BackEnd& back_end) {
  return {{"tokens_per_second", static_cast<double>(tokens) / seconds},
          {"seconds", seconds},
          {"peak_bytes", model::PeakBytes(back_end.device)},
          {"backend", back_end.name},
          {"device", back_end.device},
          {"dtype", back_end.dtype}};
}

std::vector<int32_t> RandomTokens(Rng& rng, int64_t count, int64_t vocab_size) {
  std::vector<int32_t> tokens(count);
  for (int32_t& t : tokens)
    t = static_cast<int32_t>(rng.Below(static_cast<uint64_t>(vocab_size)));
  return tokens;
}

}  // namespace atod::cli

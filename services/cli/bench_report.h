#pragma once

#include <cstdint>
#include <vector>

#include "common/base/json.h"
#include "common/base/rng.h"
#include "common/model/language_model.h"

namespace atod::cli {

// The line of `atod bench`: tokens_per_second, seconds, peak_bytes
// (model::PeakBytes), backend, device, dtype.
nlohmann::json BenchReport(int64_t tokens, double seconds,
                           const model::BackEnd& back_end);

// `count` ids below `vocab_size`.
std::vector<int32_t> RandomTokens(Rng& rng, int64_t count, int64_t vocab_size);

}  // namespace atod::cli

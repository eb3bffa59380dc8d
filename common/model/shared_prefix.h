#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/model/language_model.h"

namespace atod::model {

// Sequences of a batch that begin with the same tokens. These are computed
// once: `tokens` of the first member.
struct SharedPrefix {
  int64_t tokens = 0;            // a multiple of kCacheUnit
  std::vector<int32_t> members;  // indices into the batch, at least two
};

// Which sequences of the batch share what. A prefix ends before the first token
// whose own prediction is wanted, and is at least `least` tokens; sequences
// with a region share nothing. Each sequence is in at most one group; groups
// and members are in order of the batch.
std::vector<SharedPrefix> FindSharedPrefixes(
    absl::Span<const ScoredSequence> batch, int64_t least = 64);

}  // namespace atod::model

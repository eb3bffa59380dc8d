#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model/language_model.h"
#include "common/model/model_config.h"

namespace atod::teacher {

using model::TokenSpan;

struct ScoreRequest {
  std::vector<int32_t> tokens;
  std::vector<TokenSpan> spans;  // ascending, not overlapping
  std::string session{};         // ScoreItem.affinity_key
};

struct ScoreResult {
  // log-softmax(logits / temperature) in float32 of each scored token given all
  // before it; spans concatenated.
  std::vector<float> logprobs;
  std::vector<float> entropy;  // nats, at temperature; only if asked for
  // ScoreOptions.top_k of each scored token, falling.
  std::vector<int32_t> top_ids;
  std::vector<float> top_logprobs;
  uint64_t cached = 0;  // tokens, from the first, that were not computed again
};

struct ScoreOptions {
  float temperature = 1;  // > 0
  bool want_entropy = false;
  uint32_t top_k = 0;  // at most kMaxTopK and the vocabulary
};

inline constexpr uint32_t kMaxTopK = 256;

// A frozen model that scores token ids. Not thread-safe.
class Scorer {
 public:
  virtual ~Scorer() = default;
  // One packed forward over all requests (split by a token budget inside); the
  // head runs on scored positions only. Requests must pass Validate.
  virtual absl::StatusOr<std::vector<ScoreResult>> Score(
      const std::vector<ScoreRequest>& requests,
      const ScoreOptions& options) = 0;
};

struct ScorerOptions {
  std::string dtype = "float32";
  std::string device = "cpu";                // as RunConfig.device
  std::optional<bool> deterministic = true;  // model::OpenOptions
  uint32_t max_context = 0;                  // longest request; 0: the model's
  // Tokens of one forward, except that one request always fits.
  int64_t max_forward_tokens = 16384;
  // Tokens of sessions whose keys and values are kept; memory is taken when the
  // first session comes. 0: none are.
  int64_t kv_tokens = 0;
};

// Longest ScoreRequest.session.
inline constexpr size_t kMaxSession = 256;

struct LoadedScorer {
  std::unique_ptr<Scorer> scorer;
  model::ModelConfig config;
  model::BackEnd back_end;
  std::string weights_hash;  // root hash in the compute dtype
  uint32_t max_context = 0;
};

// The model of a Hugging Face folder.
absl::StatusOr<LoadedScorer> MakeScorer(const std::string& model_dir,
                                        const ScorerOptions& options);

// Spans inside the tokens, ascending, ids < vocab_size, length <= max_context;
// INVALID_ARGUMENT names the field otherwise. Defined in validate.cc, which
// needs no torch.
absl::Status Validate(const ScoreRequest& request, uint32_t vocab_size,
                      uint32_t max_context);

}  // namespace atod::teacher

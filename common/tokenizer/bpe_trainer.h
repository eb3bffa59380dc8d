#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/tokenizer/added_tokens.h"
#include "common/tokenizer/pre_tokenizer.h"
#include "common/tokenizer/string_ids.h"

namespace atod {

// Learns a byte-level BPE and writes it as Hugging Face files. The result
// depends on the multiset of texts alone, not on their order.
class BpeTrainer {
 public:
  struct Options {
    // Ids in all: 256 bytes, merges, special tokens. Fewer when the texts hold
    // no more pairs.
    int32_t vocab_size = 1024;
    // A pair that occurs less often is not merged.
    int64_t min_frequency = 2;
    // GPT-2's splitting keeps a blank with the number after it: shorter
    // sequences for texts full of "apple 1".
    SplitRule split = SplitRule::kGpt2;
    // Never split, never learned from; they get the last ids. eos_token ends a
    // response and is one of them.
    std::vector<std::string> special_tokens = {"<|endoftext|>", "<|im_start|>",
                                               "<|im_end|>"};
    std::string eos_token = "<|im_end|>";
    std::string pad_token = "<|endoftext|>";
  };

  explicit BpeTrainer(Options options);

  void Add(std::string_view text);

  // The text of a tokenizer.json. INVALID_ARGUMENT when vocab_size has no room
  // for bytes and special tokens, or nothing was added.
  absl::StatusOr<std::string> Train() const;

  // Trains, then writes DIR/tokenizer.json and DIR/tokenizer_config.json.
  absl::Status Write(const std::string& dir) const;

 private:
  Options options_;
  AddedTokens special_;
  StringIds pieces_;  // piece -> index of its count
  std::vector<int64_t> counts_;
};

}  // namespace atod

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/checkpoint/safetensors.h"
#include "common/model/model_config.h"
#include "common/tokenizer/tokenizer.h"

namespace atod::model {

// Model folders without torch: what ends a response, and whether a folder can
// be used at all. A command or a dry run asks CheckModelFolder before it
// starts anything.

// A folder as a run needs it.
struct ModelFolder {
  ModelConfig config;  // as the file has it: no row is set apart as padding
  std::unique_ptr<Tokenizer> tokenizer;
  std::vector<int32_t> stop_tokens;
};

// Opens everything in `dir` that a run opens, headers only: config.json, the
// names, shapes and dtypes of the weights, the tokenizer inside the vocabulary,
// the stop set, and with `max_context` > 0 the positions (CheckPositions). The
// weights' values are checked when they are loaded. Whether chat prompts can
// be rendered for the model: tokenizer->template_status(), for prompt sets in
// chat format.
absl::StatusOr<ModelFolder> CheckModelFolder(const std::string& dir,
                                             int64_t max_context);

// The ids that end a response, ascending: all that config.json,
// generation_config.json (eos_token_id, one or a list) and
// tokenizer_config.json (eos_token) declare; when none does, the tokenizer's
// <|im_end|>. Every way of generating stops at these. Empty: responses end
// with their length. INVALID_ARGUMENT for an id that is no token.
absl::StatusOr<std::vector<int32_t>> StopTokens(const std::string& model_dir,
                                                const Tokenizer& tokenizer);
// The same with the folder's tokenizer, if there is one; without it ids are
// those below vocab_size.
absl::StatusOr<std::vector<int32_t>> StopTokens(const std::string& model_dir);

// INVALID_ARGUMENT names both numbers when prompts and responses of
// `max_context` tokens have more positions than the model was made for.
absl::Status CheckPositions(const ModelConfig& config, const std::string& dir,
                            int64_t max_context);

// The tokenizer of `dir`, null when there is none. Its ids must be rows of the
// model, and every id up to the highest must have a token, for rows without
// one are known by their place alone.
absl::StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizer(
    const ModelConfig& config, const std::string& dir);

// What is wrong with a model's weights by names, shapes and dtypes: a tensor
// that is missing, surplus or of another shape; a head that differs from the
// embedding that it is tied to.
std::vector<absl::Status> TensorFaults(const ModelConfig& config,
                                       const SafetensorsDir& files);
// INVALID_ARGUMENT with all of them, or the first 20.
absl::Status CheckTensors(const ModelConfig& config,
                          const SafetensorsDir& files);

// INVALID_ARGUMENT, with its name, when `to` holds something that is no part of
// a model (and not in `from` either): writing a model there would leave two
// things in one folder.
absl::Status CheckModelTarget(const std::string& from, const std::string& to);

// Makes the other files of `to` those of `from`: copies what is neither weights
// nor config.json (the tokenizer, its settings, templates, generation_config),
// byte for byte, and removes files of a model that `from` has not. A manifest
// is removed, for it speaks of other files.
absl::Status CopyTokenizerFiles(const std::string& from, const std::string& to);

// Removes weights under other names than model.safetensors: shards, their
// index, pytorch_model*.bin.
absl::Status RemoveOtherWeights(const std::string& dir);

// INVALID_ARGUMENT when values of an F32, BF16 or F16 tensor are NaN or
// infinite; `file` names it.
absl::Status CheckFinite(const TensorView& tensor, const std::string& file);

}  // namespace atod::model

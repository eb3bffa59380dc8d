#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/model/language_model.h"

namespace atod::learner {

struct SftOptions {
  std::string model_dir;  // initial weights and tokenizer
  // JSON lines {"prompt", "response"}, or {"turns": [those, and "train": false
  // for a response that is context only]}: one sequence, in the order of turns.
  std::string data_path;
  std::string out_dir;
  int64_t updates = 800;
  int64_t batch_rows = 32;
  double lr = 3e-3;
  int64_t warmup = 30;              // updates from 0 to lr
  std::string schedule = "cosine";  // to a tenth of lr; or "constant"
  double weight_decay = 0.01;
  double grad_clip = 1;
  double beta2 = 0.95;
  uint64_t seed = 0;
  uint32_t threads = 1;  // of the process; 0: one a core
  std::string dtype = "float32", device = "cpu";  // these: model::OpenOptions
  std::optional<bool> deterministic = std::nullopt;
};

struct SftProgress {
  int64_t update = 0;  // done
  double loss = 0;     // nats per trained token, mean since the last report
  double lr = 0;
  double grad_norm = 0;  // before clipping, of the last update
  double updates_per_second = 0, tokens_per_second = 0;  // since the last one
};

// The learning rate of update `i`, from 0.
double SftLearningRate(const SftOptions& options, int64_t i);

// Supervised fine-tuning: cross-entropy of the response's tokens and the end
// token, mean over the tokens of a batch. Rows are shuffled anew every epoch
// and packed without padding. Writes a Hugging Face folder with the tokenizer
// beside the weights. `opened` hears what computes; `report` is called about
// once a second and at the end. On cpu-exact deterministic in (files, options)
// for any number of threads. Errors in the data name file and line.
absl::StatusOr<SftProgress> TrainSft(
    const SftOptions& options,
    const std::function<void(const SftProgress&)>& report,
    const std::function<void(const model::BackEnd&)>& opened = nullptr);

}  // namespace atod::learner

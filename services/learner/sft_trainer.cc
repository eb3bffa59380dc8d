#include "services/learner/sft_trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <numbers>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/problem.h"
#include "common/base/rng.h"
#include "common/base/status_macros.h"
#include "common/model/arena.h"
#include "common/model/language_model.h"
#include "common/model/model_files.h"
#include "common/model/threads.h"
#include "common/model/torch_status.h"
#include "common/tokenizer/tokenizer.h"
#include "services/learner/adamw.h"

namespace atod::learner {
namespace {

using model::ScoredSequence;

// Reads the rows of a file.
class RowReader {
 public:
  RowReader(const std::string& path, const Tokenizer& tokenizer,
            const std::vector<int32_t>& stop, int64_t longest)
      : path_(path), tokenizer_(tokenizer), stop_(stop), longest_(longest) {
    // The tokenizer's own, when generating stops at it.
    const std::optional<int32_t> own = tokenizer.eos_id();
    end_ = own.has_value() && Ends(*own) ? *own : stop[0];
  }

  absl::StatusOr<std::vector<ScoredSequence>> Read() {
    ATOD_ASSIGN_OR_RETURN(const std::string text, ReadFile(path_));
    std::vector<ScoredSequence> rows;
    for (const std::string& line :
         std::vector<std::string>(absl::StrSplit(text, '\n'))) {
      ++line_;
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      ATOD_ASSIGN_OR_RETURN(rows.emplace_back(), Row(line));
    }
    if (rows.empty()) return BadInput({path_, "", 0, "no rows", "JSON lines"});
    return rows;
  }

 private:
  bool Ends(int32_t id) const {
    return std::find(stop_.begin(), stop_.end(), id) != stop_.end();
  }
  absl::Status Bad(const std::string& field, const std::string& found,
                   const std::string& expected) const {
    return BadInput({path_, field, line_, found, expected});
  }

  absl::StatusOr<ScoredSequence> Row(const std::string& line) {
    const auto json = ParseJson(line, path_);
    if (!json.ok()) return Bad("prompt", "broken JSON", kRow);
    ScoredSequence row;
    if (json->is_object() && json->contains("turns")) {
      const nlohmann::json& turns = (*json)["turns"];
      if (!turns.is_array() || turns.empty())
        return Bad("turns", JsonPreview(turns), "a list of turns");
      for (size_t i = 0; i < turns.size(); ++i)
        ATOD_RETURN_IF_ERROR(
            AddTurn(turns[i], absl::StrCat("turns[", i, "]."), row));
      if (row.spans.empty())
        return Bad("turns", "no turn to train", "at least one");
    } else {
      ATOD_RETURN_IF_ERROR(AddTurn(*json, "", row));
    }
    if (static_cast<int64_t>(row.tokens.size()) > longest_)
      return Bad("prompt", absl::StrCat(row.tokens.size(), " tokens"),
                 absl::StrCat("at most ", longest_));
    return row;
  }

  absl::Status AddTurn(const nlohmann::json& turn, const std::string& place,
                       ScoredSequence& row) const {
    for (const char* name : {"prompt", "response"})
      if (!turn.is_object() || !turn.contains(name) || !turn[name].is_string())
        return Bad(place + name, JsonPreview(turn), kRow);
    const bool train = !turn.contains("train") || turn["train"] == true;
    if (!train && turn["train"] != false)
      return Bad(place + "train", JsonPreview(turn["train"]), "true or false");
    const auto text = [&](const char* name) {
      return tokenizer_.Encode(turn[name].get<std::string>());
    };
    const std::vector<int32_t> prompt = text("prompt");
    std::vector<int32_t> response = text("response");
    for (const auto& [name, tokens] :
         {std::pair{"prompt", &prompt}, {"response", &response}})
      if (tokens->empty())
        return Bad(place + name, "no text", "at least a token");
    if (!Ends(response.back())) response.push_back(end_);
    row.tokens.insert(row.tokens.end(), prompt.begin(), prompt.end());
    if (train)
      row.spans.push_back({static_cast<uint32_t>(row.tokens.size()),
                           static_cast<uint32_t>(response.size())});
    row.tokens.insert(row.tokens.end(), response.begin(), response.end());
    return absl::OkStatus();
  }

  static constexpr char kRow[] = R"({"prompt": text, "response": text})";
  const std::string& path_;
  const Tokenizer& tokenizer_;
  const std::vector<int32_t>& stop_;
  const int64_t longest_;
  int32_t end_ = 0;
  int64_t line_ = 0;
};

double MeanOf(const std::vector<float>& x) {
  return std::accumulate(x.begin(), x.end(), 0.0) /
         static_cast<double>(x.size());
}

// Row numbers for ever, shuffled anew in every epoch.
class RowOrder {
 public:
  RowOrder(size_t rows, uint64_t seed) : order_(rows), rng_(seed) {
    std::iota(order_.begin(), order_.end(), 0);
  }
  size_t Next() {
    if (next_ == 0) rng_.Shuffle(order_);
    const size_t row = order_[next_];
    next_ = (next_ + 1) % order_.size();
    return row;
  }

 private:
  std::vector<size_t> order_;
  size_t next_ = 0;
  Rng rng_;
};

// Adds up what happens between two reports.
class Meter {
 public:
  void Add(double loss, int64_t tokens) {
    loss_ += loss;
    tokens_ += tokens;
    ++updates_;
  }
  double seconds() const {
    return std::chrono::duration<double>(Clock::now() - begin_).count();
  }
  void Fill(SftProgress& p) {
    const double s = seconds();
    p.loss = loss_ / static_cast<double>(updates_);
    p.updates_per_second = static_cast<double>(updates_) / s;
    p.tokens_per_second = static_cast<double>(tokens_) / s;
    *this = Meter();
  }

 private:
  using Clock = std::chrono::steady_clock;
  double loss_ = 0;
  int64_t tokens_ = 0, updates_ = 0;
  Clock::time_point begin_ = Clock::now();
};

}  // namespace

double SftLearningRate(const SftOptions& o, int64_t i) {
  if (i < o.warmup)
    return o.lr * static_cast<double>(i + 1) / static_cast<double>(o.warmup);
  if (o.schedule == "constant" || o.updates <= o.warmup) return o.lr;
  const double done = static_cast<double>(i - o.warmup) /
                      static_cast<double>(o.updates - o.warmup);
  return o.lr * (0.1 + 0.45 * (1 + std::cos(std::numbers::pi * done)));
}

absl::StatusOr<SftProgress> TrainSft(
    const SftOptions& o, const std::function<void(const SftProgress&)>& report,
    const std::function<void(const model::BackEnd&)>& opened) {
  if (o.schedule != "cosine" && o.schedule != "constant")
    return BadInput({"sft", "schedule", 0, o.schedule, "cosine or constant"});
  if (o.updates < 1 || o.batch_rows < 1)
    return BadInput({"sft", "updates, batch-rows", 0,
                     absl::StrCat(o.updates, ", ", o.batch_rows),
                     "at least 1"});
  ATOD_RETURN_IF_ERROR(model::CheckModelTarget(o.model_dir, o.out_dir));
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                        Tokenizer::Load(o.model_dir));
  ATOD_ASSIGN_OR_RETURN(const std::vector<int32_t> stop,
                        model::StopTokens(o.model_dir, *tokenizer));
  if (stop.empty())
    return BadInput({o.model_dir + "/tokenizer_config.json", "eos_token", 0,
                     "none", "the token that ends a response"});
  ATOD_ASSIGN_OR_RETURN(
      const std::unique_ptr<model::LanguageModel> model,
      model::LanguageModel::Open(o.model_dir, {.dtype = o.dtype,
                                               .device = o.device,
                                               .deterministic = o.deterministic,
                                               .gradients = true}));
  if (opened) opened(model->back_end());
  ATOD_ASSIGN_OR_RETURN(const std::vector<ScoredSequence> rows,
                        RowReader(o.data_path, *tokenizer, stop,
                                  model->config().max_position_embeddings)
                            .Read());
  return model::CatchTorch("sft", [&]() -> absl::StatusOr<SftProgress> {
    model::SetComputeThreads(o.threads);
    AdamW optimizer(&model->arena(), {0.9, o.beta2, 1e-8, o.weight_decay});
    RowOrder order(rows.size(), o.seed);
    Meter meter;
    SftProgress progress;
    while (progress.update < o.updates) {
      std::vector<ScoredSequence> batch;
      int64_t tokens = 0;
      for (int64_t i = 0; i < o.batch_rows; ++i) {
        batch.push_back(rows[order.Next()]);
        tokens += static_cast<int64_t>(batch.back().tokens.size());
      }
      model->arena().gradients.zero_();
      ATOD_ASSIGN_OR_RETURN(const model::ScoreOutput scored,
                            model->ScoreForBackward(batch, {}));
      const size_t n = scored.logprobs.size();
      const double value = -MeanOf(scored.logprobs);
      ATOD_RETURN_IF_ERROR(model->Backward(
          std::vector<float>(n, -1.0f / static_cast<float>(n)), {}));
      progress.grad_norm = ClipGradNorm(model->arena(), o.grad_clip);
      if (!std::isfinite(value) || !std::isfinite(progress.grad_norm))
        return absl::InternalError(absl::StrCat(
            "sft: update ", progress.update + 1, ": found loss ", value,
            " and gradient norm ", progress.grad_norm,
            ", expected finite numbers (lower the learning rate)"));
      progress.lr = SftLearningRate(o, progress.update);
      optimizer.Step(progress.lr);
      ATOD_RETURN_IF_ERROR(model->ParametersChanged());
      meter.Add(value, tokens);
      ++progress.update;
      if (meter.seconds() >= 1 || progress.update == o.updates) {
        meter.Fill(progress);
        report(progress);
      }
    }
    ATOD_RETURN_IF_ERROR(model->Save(o.out_dir, "float32"));
    ATOD_RETURN_IF_ERROR(model::CopyTokenizerFiles(o.model_dir, o.out_dir));
    return progress;
  });
}

}  // namespace atod::learner

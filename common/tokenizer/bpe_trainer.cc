#include "common/tokenizer/bpe_trainer.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <queue>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/base/file.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/tokenizer/unicode.h"

namespace atod {
namespace {

using Json = nlohmann::ordered_json;
using Pair = std::pair<int32_t, int32_t>;

std::vector<AddedToken> ToAdded(const std::vector<std::string>& contents) {
  std::vector<AddedToken> out;
  for (const std::string& content : contents) {
    out.push_back({.id = 0, .content = content});
  }
  return out;
}

// The merge loop: pieces as symbols, counts of the pairs in them, and for each
// pair the pieces that held it when it was counted.
class Merger {
 public:
  // `pieces` with their counts; symbols below 256 are ranks of bytes.
  Merger(std::vector<std::pair<std::vector<int32_t>, int64_t>> pieces)
      : pieces_(std::move(pieces)) {
    for (uint32_t i = 0; i < pieces_.size(); ++i) Count(i, +1);
    for (const auto& [pair, count] : counts_) queue_.push({count, pair});
  }

  // The most frequent pair, of equal ones the one with the smallest ids;
  // {-1, -1} when none occurs `least` times.
  Pair Next(int64_t least) {
    while (!queue_.empty() && queue_.top().count >= least) {
      const Candidate top = queue_.top();
      queue_.pop();
      const int64_t now = counts_[top.pair];
      if (now == top.count) return top.pair;
      if (now > 0) queue_.push({now, top.pair});
    }
    return {-1, -1};
  }

  void Merge(Pair pair, int32_t merged) {
    std::vector<uint32_t> where = std::move(where_[pair]);
    where_.erase(pair);
    std::sort(where.begin(), where.end());
    where.erase(std::unique(where.begin(), where.end()), where.end());
    fresh_.clear();
    for (const uint32_t i : where) {
      Count(i, -1);
      std::vector<int32_t>& symbols = pieces_[i].first;
      size_t size = 0;
      for (size_t k = 0; k < symbols.size(); ++k) {
        const bool hit = k + 1 < symbols.size() && symbols[k] == pair.first &&
                         symbols[k + 1] == pair.second;
        symbols[size++] = hit ? merged : symbols[k];
        k += hit ? 1 : 0;
      }
      symbols.resize(size);
      Count(i, +1);
    }
    for (const Pair& p : fresh_) queue_.push({counts_[p], p});
  }

 private:
  struct Candidate {
    int64_t count;
    Pair pair;
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : pair > other.pair;
    }
  };

  void Count(uint32_t i, int sign) {
    const auto& [symbols, count] = pieces_[i];
    for (size_t k = 0; k + 1 < symbols.size(); ++k) {
      const Pair pair = {symbols[k], symbols[k + 1]};
      counts_[pair] += sign * count;
      if (sign > 0) {
        where_[pair].push_back(i);
        fresh_.push_back(pair);
      }
    }
  }

  std::vector<std::pair<std::vector<int32_t>, int64_t>> pieces_;
  absl::flat_hash_map<Pair, int64_t> counts_;
  absl::flat_hash_map<Pair, std::vector<uint32_t>> where_;
  std::priority_queue<Candidate> queue_;  // counts may be out of date
  std::vector<Pair> fresh_;               // counted since the last Merge
};

Json PreTokenizer(SplitRule split) {
  Json byte_level = {{"type", "ByteLevel"},
                     {"add_prefix_space", false},
                     {"trim_offsets", false},
                     {"use_regex", split == SplitRule::kGpt2}};
  if (split == SplitRule::kGpt2) return byte_level;
  const Json pattern = {{"Regex", std::string(SplitPattern(split))}};
  return {{"type", "Sequence"},
          {"pretokenizers", Json::array({{{"type", "Split"},
                                          {"pattern", pattern},
                                          {"behavior", "Isolated"},
                                          {"invert", false}},
                                         byte_level})}};
}

}  // namespace

BpeTrainer::BpeTrainer(Options options)
    : options_(std::move(options)),
      special_(ToAdded(options_.special_tokens)) {}

void BpeTrainer::Add(std::string_view text) {
  const std::string valid = ToValidUtf8(text);
  special_.Split(valid, [&](int32_t id, std::string_view part) {
    if (id >= 0) return;
    std::string normal(part);
    if (options_.split == SplitRule::kQwen2) normal = ToNfc(part);
    for (size_t begin = 0; begin < normal.size();) {
      const size_t end = PieceEnd(options_.split, normal, begin);
      const auto [it, inserted] =
          pieces_.try_emplace(normal.substr(begin, end - begin),
                              static_cast<int32_t>(counts_.size()));
      if (inserted) counts_.push_back(0);
      ++counts_[it->second];
      begin = end;
    }
  });
}

absl::StatusOr<std::string> BpeTrainer::Train() const {
  const auto num_special = static_cast<int32_t>(options_.special_tokens.size());
  if (options_.vocab_size < 256 + num_special) {
    return BadInput({.field = "vocab_size",
                     .found = absl::StrCat(options_.vocab_size),
                     .expected = absl::StrCat("at least ", 256 + num_special)});
  }
  if (pieces_.empty()) {
    return BadInput({.field = "data",
                     .found = "no text",
                     .expected = "some to learn from"});
  }
  // Bytes take the first ids, in the order of their stand-in characters.
  std::vector<int> bytes(256);
  for (int b = 0; b < 256; ++b) bytes[b] = b;
  std::sort(bytes.begin(), bytes.end(),
            [](int a, int b) { return ByteChar(a) < ByteChar(b); });
  std::vector<std::string> tokens;
  std::vector<int32_t> byte_ids(256);
  StringIds ids;
  for (const int b : bytes) {
    byte_ids[b] = static_cast<int32_t>(tokens.size());
    tokens.push_back(ToByteLevel(std::string(1, static_cast<char>(b))));
    ids[tokens.back()] = byte_ids[b];
  }
  std::vector<std::pair<std::vector<int32_t>, int64_t>> pieces;
  for (const auto& [piece, index] : pieces_) {
    std::vector<int32_t> symbols;
    for (const char c : piece) {
      symbols.push_back(byte_ids[static_cast<unsigned char>(c)]);
    }
    pieces.emplace_back(std::move(symbols), counts_[index]);
  }
  Merger merger(std::move(pieces));
  Json merges = Json::array();
  while (static_cast<int32_t>(tokens.size()) + num_special <
         options_.vocab_size) {
    const Pair pair = merger.Next(std::max<int64_t>(1, options_.min_frequency));
    if (pair.first < 0) break;
    const std::string token = tokens[pair.first] + tokens[pair.second];
    const auto [it, inserted] =
        ids.try_emplace(token, static_cast<int32_t>(tokens.size()));
    merges.push_back({tokens[pair.first], tokens[pair.second]});
    if (inserted) tokens.push_back(token);
    merger.Merge(pair, it->second);
  }
  Json vocab = Json::object();
  for (size_t i = 0; i < tokens.size(); ++i) {
    // Not vocab[...]: an ordered object searches all its keys.
    vocab.get_ref<Json::object_t&>().emplace_back(tokens[i], i);
  }
  Json added = Json::array();
  for (size_t i = 0; i < options_.special_tokens.size(); ++i) {
    added.push_back({{"id", tokens.size() + i},
                     {"content", options_.special_tokens[i]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const Json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", false},
                           {"use_regex", false}};
  const Json root = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer",
       options_.split == SplitRule::kQwen2 ? Json{{"type", "NFC"}} : Json()},
      {"pre_tokenizer", PreTokenizer(options_.split)},
      {"post_processor", byte_level},
      {"decoder", byte_level},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"ignore_merges", false},
        {"vocab", vocab},
        {"merges", merges}}}};
  return root.dump(1) + "\n";
}

absl::Status BpeTrainer::Write(const std::string& dir) const {
  ATOD_ASSIGN_OR_RETURN(const std::string tokenizer, Train());
  // Not Qwen2Tokenizer: transformers would then put its own splitting in.
  const Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                       {"eos_token", options_.eos_token},
                       {"pad_token", options_.pad_token},
                       {"clean_up_tokenization_spaces", false}};
  ATOD_RETURN_IF_ERROR(MakeDirs(dir));
  const std::filesystem::path folder = dir;
  ATOD_RETURN_IF_ERROR(
      WriteFileAtomic((folder / "tokenizer.json").string(), tokenizer));
  return WriteFileAtomic((folder / "tokenizer_config.json").string(),
                         config.dump(1) + "\n");
}

}  // namespace atod

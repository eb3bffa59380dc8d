#include "common/tokenizer/difference.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/json.h"

namespace atod {
namespace {

std::string Text(const std::string& what, const std::string& found,
                 const std::string& expected) {
  return absl::StrCat(what, ": found ", found, ", expected ", expected);
}

// The first place where two lists differ, "nothing" behind the end of one.
std::string ListDifference(const char* what,
                           const std::vector<std::string>& found,
                           const std::vector<std::string>& expected) {
  for (size_t i = 0; i < std::max(found.size(), expected.size()); ++i) {
    const std::string a = i < found.size() ? found[i] : "nothing";
    const std::string b = i < expected.size() ? expected[i] : "nothing";
    if (a != b) return Text(absl::StrCat(what, " ", i), a, b);
  }
  return "";
}

// Tokens by id, as JSON; an id without one is "nothing".
std::vector<std::string> Spelled(const StringIds& ids, int32_t size) {
  std::vector<std::string> out(size, "nothing");
  for (const auto& [token, id] : ids) {
    out[id] = JsonPreview(nlohmann::json(token));
  }
  return out;
}

}  // namespace

std::string TokenizerDifference(const Tokenizer& found,
                                const Tokenizer& expected) {
  if (found.hash() == expected.hash()) return "";
  const auto a = Spelled(found.ids_, found.vocab_size());
  const auto b = Spelled(expected.ids_, expected.vocab_size());
  const auto merges = [](const Bpe& bpe,
                         const std::vector<std::string>& spelled) {
    std::vector<std::string> out;
    for (const Bpe::Merge& m : bpe.merges()) {
      out.push_back(absl::StrCat(spelled[m.left], " ", spelled[m.right]));
    }
    return out;
  };
  std::string difference = ListDifference("vocabulary: token", a, b);
  if (difference.empty()) {
    difference = ListDifference("merges: merge", merges(found.bpe_, a),
                                merges(expected.bpe_, b));
  }
  if (difference.empty()) {
    difference =
        ListDifference("added_tokens: entry", found.added_, expected.added_);
  }
  if (difference.empty()) {
    difference = Text("normalizer and pre_tokenizer", found.pipeline_,
                      expected.pipeline_);
  }
  return difference;
}

std::string HashDifference(std::string_view found, std::string_view expected) {
  const std::vector<std::string> a = absl::StrSplit(std::string(found), ',');
  const std::vector<std::string> b = absl::StrSplit(std::string(expected), ',');
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const std::vector<std::string> x = absl::StrSplit(a[i], '=');
    const std::vector<std::string> y = absl::StrSplit(b[i], '=');
    if (x.size() != 2 || y.size() != 2 || x[0] != y[0]) break;
    if (x[1] != y[1]) return Text(x[0], x[1], y[1]);
  }
  return Text("hash", std::string(found), std::string(expected));
}

}  // namespace atod

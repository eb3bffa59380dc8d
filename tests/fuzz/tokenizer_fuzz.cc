// tokenizer.json; what loads must stand any text.
#include <algorithm>

#include "common/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string path =
      atod::WriteInput("tokenizer.json", atod::Text(data, size));
  const auto tokenizer = atod::Tokenizer::Load(path);
  if (!tokenizer.ok()) return 0;
  const std::string text(atod::Text(data, std::min<size_t>(size, 300)));
  (*tokenizer)->Decode((*tokenizer)->Encode(text));
  (*tokenizer)->Decode({-1, 0, 1, 1 << 30}, true);
  return 0;
}

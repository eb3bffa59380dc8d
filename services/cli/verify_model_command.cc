#include "services/cli/verify_model_command.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status_macros.h"
#include "common/model/verify_model.h"
#include "services/cli/command.h"

namespace atod::cli {
namespace {

absl::StatusOr<int> VerifyAndPrint(const std::string& dir) {
  ATOD_ASSIGN_OR_RETURN(const model::ModelReport report,
                        model::VerifyModel(dir));
  size_t width = 6;
  uint64_t bytes = 0, parameters = 0;
  for (const model::TensorRow& row : report.tensors) {
    width = std::max(width, row.name.size());
    bytes += row.bytes;
    uint64_t count = 1;
    for (const int64_t n : row.shape) count *= static_cast<uint64_t>(n);
    parameters += count;
  }
  const int w = static_cast<int>(width);
  std::printf("%-*s  %-5s  %-16s  %12s  %s\n", w, "tensor", "dtype", "shape",
              "bytes", "xxh3-128");
  for (const model::TensorRow& row : report.tensors) {
    std::printf("%-*s  %-5s  %-16s  %12llu  %s\n", w, row.name.c_str(),
                row.dtype.c_str(),
                absl::StrCat("[", absl::StrJoin(row.shape, ", "), "]").c_str(),
                static_cast<unsigned long long>(row.bytes), row.hash.c_str());
  }
  std::printf("%zu tensors, %llu parameters, %llu bytes; ",
              report.tensors.size(),
              static_cast<unsigned long long>(parameters),
              static_cast<unsigned long long>(bytes));
  if (report.has_manifest) {
    std::printf("%zu files in the manifest\n", report.manifest_files);
  } else {
    std::printf("no manifest\n");
  }
  std::printf("responses end with ");
  for (size_t i = 0; i < report.stop_tokens.size(); ++i) {
    std::printf("%s%d", i > 0 ? ", " : "", report.stop_tokens[i]);
    if (i < report.stop_texts.size()) {
      std::printf(" %s", report.stop_texts[i].c_str());
    }
  }
  std::printf("%s\n", report.stop_tokens.empty() ? "their length only" : "");
  // transformers, too, loads such a folder.
  if (!report.has_tokenizer) {
    std::printf(
        "no tokenizer.json: good for token ids (score, generate, export), not "
        "for texts and games\n");
  }
  if (report.padding_rows > 0) {
    std::printf("%lld rows of the vocabulary have no token\n",
                static_cast<long long>(report.padding_rows));
  }
  for (const std::string& fault : report.faults) {
    std::printf("fault: %s\n", fault.c_str());
  }
  if (!report.faults.empty()) return 1;
  std::printf("ok\n");
  return 0;
}

}  // namespace

void AddVerifyModelCommand(Command app) {
  const auto dir = std::make_shared<std::string>();
  app.Add("verify-model",
          "Account for every tensor and file of a model; exit 1 on a fault",
          [dir] { return VerifyAndPrint(*dir); })
      .Arg("DIR", *dir, "Model folder")
      .Required();
}

}  // namespace atod::cli

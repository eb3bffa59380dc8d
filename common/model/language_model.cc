#include "common/model/language_model.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/device/plugin.h"
#include "common/model/exact/exact_model.h"
#include "common/model/exact/self_test.h"
#include "common/model/model_folder.h"
#include "common/model/torch/torch_model.h"
#include "common/model/torch_status.h"
#include "common/model/weights_io.h"

namespace atod::model {
namespace {

// "cpu" or "cuda", ready for torch.
absl::Status OpenDevice(const std::string& device) {
  if (device == "cpu") return absl::OkStatus();
  // Before torch is asked for a GPU: it keeps its first answer.
  ATOD_RETURN_IF_ERROR(LoadDevicePlugin().status());
  return CheckDevice(device);
}

absl::Status CheckExact(const ModelConfig& config, const std::string& dtype,
                        const std::string& device) {
  const std::string obstacle = ExactObstacle(config, dtype, device);
  if (!obstacle.empty())
    return absl::FailedPreconditionError(
        absl::StrCat("deterministic: found ", obstacle,
                     ", expected what the float32 kernels of the CPU can run; "
                     "deterministic: false runs it within tolerances"));
  static const absl::Status& tested =
      *new absl::Status(RunSelfTest(KernelOperations()));
  return tested;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LanguageModel>> LanguageModel::Open(
    const std::string& dir, const OpenOptions& options) {
  ATOD_ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(dir));
  const int64_t max_context = options.max_context > 0
                                  ? options.max_context
                                  : config.max_position_embeddings;
  ATOD_RETURN_IF_ERROR(CheckPositions(config, dir, max_context));
  if (options.deterministic == true && !options.dtype.empty())
    ATOD_RETURN_IF_ERROR(CheckExact(config, options.dtype, options.device));
  ATOD_RETURN_IF_ERROR(OpenDevice(options.device));
  ATOD_ASSIGN_OR_RETURN(
      ModelWeights weights,
      LoadWeights(dir, {.dtype = options.dtype,
                        .device = torch::Device(options.device),
                        .gradients = options.gradients}));
  const std::string dtype = DtypeName(weights.arena->values.scalar_type());
  const bool exact = options.deterministic.value_or(
      ExactObstacle(config, dtype, options.device).empty());
  if (!exact) return MakeTorchModel(std::move(weights), max_context);
  ATOD_RETURN_IF_ERROR(CheckExact(config, dtype, options.device));
  return MakeExactModel(std::move(weights), max_context);
}

}  // namespace atod::model

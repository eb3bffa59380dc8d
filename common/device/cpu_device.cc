#include "common/device/cpu_device.h"

namespace atod {
namespace {

class CpuDevice final : public DeviceBackend {
 public:
  std::string name() const override { return "cpu"; }

  absl::Status Statistics(const StatisticsInput& in,
                          StatisticsOutput* out) override {
    const int32_t groups = static_cast<int32_t>(in.group_begin.size()) - 1;
    const int32_t trajectories = static_cast<int32_t>(in.turn_begin.size()) - 1;
    const int32_t turns = static_cast<int32_t>(in.token_begin.size()) - 1;
    const double* teacher =
        in.teacher_logprob.empty() ? nullptr : in.teacher_logprob.data();
    out->flat.resize(groups);
    out->grpo.resize(in.reward.size());
    out->active.resize(trajectories);
    for (auto* column : {&out->d, &out->h, &out->d_norm, &out->h_norm, &out->w})
      column->resize(turns);

    for (int32_t g = 0; g < groups; ++g) {
      out->flat[g] = kernels::NormalizeGroup(
          in.group_member.data(), kernels::RowsOf(in.group_begin.data(), g),
          in.group, in.reward.data(), out->grpo.data());
    }
    for (int32_t k = 0; k < turns; ++k) {
      kernels::TurnStatistics(in.old_logprob.data(), teacher,
                              kernels::RowsOf(in.token_begin.data(), k),
                              &out->d[k], &out->h[k]);
    }
    for (int32_t i = 0; i < trajectories; ++i) {
      const kernels::Range rows = kernels::RowsOf(in.turn_begin.data(), i);
      out->active[i] = kernels::WeighTurns(
          in.token_begin.data(), rows, in.tdur, out->d.data(), out->h.data(),
          out->d_norm.data(), out->h_norm.data(), out->w.data());
    }
    return absl::OkStatus();
  }

  absl::Status Combine(const CombineInput& in,
                       std::vector<double>* advantage) override {
    const int32_t turns = static_cast<int32_t>(in.token_begin.size()) - 1;
    advantage->resize(in.token_begin.back());
    for (int32_t k = 0; k < turns; ++k) {
      for (int32_t t = in.token_begin[k]; t < in.token_begin[k + 1]; ++t) {
        const kernels::HybridTerms<double> terms = kernels::HybridAdvantage(
            in.kl_coef, in.weight[in.token_weights ? t : k],
            in.signal.empty() ? 0.0 : in.signal[t], in.rl_coef,
            in.group_advantage[k]);
        (*advantage)[t] = terms.distillation + terms.reward;
      }
    }
    return absl::OkStatus();
  }
};

}  // namespace

std::unique_ptr<DeviceBackend> MakeCpuDevice() {
  return std::make_unique<CpuDevice>();
}

}  // namespace atod

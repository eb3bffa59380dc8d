#pragma once

namespace atod {

// The smallest temperature but 0, which is greedy: float32 logits divided by
// less say nothing about their order, and their log-probs are rounding noise.
inline constexpr float kMinTemperature = 0.01f;
inline constexpr float kMaxTemperature = 100;  // as config.proto has it

}  // namespace atod

#include "common/run/step_line.h"

#include <cmath>

#include "nlohmann/json.hpp"

namespace atod {

std::string WriteStepLine(const RecordedStep& step) {
  nlohmann::ordered_json line;
  line["step"] = step.step;
  if (step.time != 0) line["time"] = step.time;
  for (const auto& [tag, value] : step.scalars) line[tag] = value;
  return line.dump();
}

std::optional<RecordedStep> ReadStepLine(std::string_view line) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  const auto number = json.find("step");
  if (number == json.end() || !number->is_number_unsigned() ||
      number->get<uint64_t>() > UINT32_MAX) {
    return std::nullopt;
  }
  RecordedStep step;
  step.step = number->get<uint32_t>();
  for (const auto& [tag, value] : json.items()) {
    if (tag == "step") continue;
    const double scalar = value.is_number() ? value.get<double>() : NAN;
    (tag == "time" ? step.time : step.scalars[tag]) = scalar;
  }
  return step;
}

}  // namespace atod

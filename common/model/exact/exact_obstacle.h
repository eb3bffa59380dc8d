#pragma once

#include <string>

#include "common/model/model_config.h"

namespace atod::model {

// What hinders the back end cpu-exact from running this model on this machine;
// empty when nothing does. `dtype` and `device` as in OpenOptions.
std::string ExactObstacle(const ModelConfig& config, const std::string& dtype,
                          const std::string& device);

}  // namespace atod::model

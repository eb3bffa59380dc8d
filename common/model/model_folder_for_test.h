#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "common/base/file.h"
#include "common/checkpoint/safetensors.h"
#include "common/model/model_config.h"
#include "gtest/gtest.h"

namespace atod::model {

// A test with a model's folder, whose tensors it changes and writes again.
class TensorsTest : public testing::Test {
 protected:
  explicit TensorsTest(const std::string& name)
      : dir_(testing::TempDir() + "/" + name) {
    std::filesystem::remove_all(dir_);
    EXPECT_TRUE(MakeDirs(dir_).ok());
  }
  ~TensorsTest() override { std::filesystem::remove_all(dir_); }

  // All that a model of `config` has, each value 0.5.
  void FillTensors(const ModelConfig& config) {
    for (const ParameterSpec& spec : ParameterSpecs(config)) {
      int64_t count = 1;
      for (const int64_t n : spec.shape) count *= n;
      shapes_[spec.name] = spec.shape;
      values_[spec.name].assign(static_cast<size_t>(count), 0.5f);
    }
  }
  void WriteTensors() {
    std::vector<TensorView> views;
    for (const auto& [name, values] : values_) {
      views.push_back({name, "F32", shapes_[name],
                       absl::MakeConstSpan(
                           reinterpret_cast<const std::byte*>(values.data()),
                           values.size() * sizeof(float))});
    }
    ASSERT_TRUE(WriteSafetensors(dir_ + "/model.safetensors", views).ok());
  }

  const std::string dir_;
  std::map<std::string, std::vector<int64_t>> shapes_;
  std::map<std::string, std::vector<float>> values_;
};

}  // namespace atod::model

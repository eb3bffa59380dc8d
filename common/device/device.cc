#include "common/device/device.h"

#include <dlfcn.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/device/cpu_device.h"
#include "common/device/plugin.h"

namespace atod {
namespace {

namespace fs = std::filesystem;

// Beside the program, then ../lib of an installed tree.
std::vector<std::string> PluginPaths() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (error) return {};
  const fs::path folder = program.parent_path();
  return {(folder / kPluginFile).string(),
          (folder.parent_path() / "lib" / kPluginFile).string()};
}

absl::StatusOr<const DevicePlugin*> OpenPlugin() {
  std::string file = kPluginFile;
  std::string looked;
  std::error_code error;
  for (const std::string& path : PluginPaths()) {
    absl::StrAppend(&looked, looked.empty() ? "" : ", ", path);
    if (fs::exists(path, error)) {
      file = path;
      break;
    }
  }
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const std::string why = dlerror();
    if (file == kPluginFile) {
      return absl::FailedPreconditionError(absl::StrCat(
          "device: found no ", kPluginFile, " (looked for ", looked,
          " and on the loader's path), expected the CUDA plugin: build it with "
          "`cmake --preset cuda`, or set device: cpu"));
    }
    return absl::FailedPreconditionError(absl::StrCat(
        file, ": cannot be loaded: ", why,
        "; expected the CUDA libraries that it needs (deploy/setup.sh --cuda "
        "fetches them)"));
  }
  using Entry = const DevicePlugin* (*)();
  const auto entry = reinterpret_cast<Entry>(dlsym(library, kPluginSymbol));
  if (entry == nullptr || entry()->version != DevicePlugin::kVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        file, ": found ",
        entry == nullptr ? std::string("no entry point")
                         : absl::StrCat("version ", entry()->version),
        ", expected version ", DevicePlugin::kVersion,
        ": build program and plugin together"));
  }
  return entry();
}

}  // namespace

absl::StatusOr<const DevicePlugin*> LoadDevicePlugin() {
  static const auto* const kPlugin =
      new absl::StatusOr<const DevicePlugin*>(OpenPlugin());
  return *kPlugin;
}

absl::StatusOr<std::unique_ptr<DeviceBackend>> OpenDevice(
    const std::string& device) {
  if (device == "cpu") return MakeCpuDevice();
  if (device == "cuda") {
    ATOD_ASSIGN_OR_RETURN(const DevicePlugin* plugin, LoadDevicePlugin());
    return plugin->open_device();
  }
  return absl::NotFoundError(absl::StrCat("device: found \"", device,
                                          "\", expected \"cpu\" or \"cuda\""));
}

}  // namespace atod

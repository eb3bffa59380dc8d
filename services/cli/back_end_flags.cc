#include "services/cli/back_end_flags.h"

#include <cstdio>

#include "absl/strings/str_cat.h"
namespace atod::cli {

void AddBackEndFlags(Command command, BackEndFlags& flags) {
  command.Arg("--dtype", flags.dtype, "compute dtype (fp32)")
      .OneOf({"fp32", "bf16"});
  command.Arg("--device", flags.device, "where it runs (cpu)")
      .OneOf({"cpu", "cuda"});
  command
      .Arg("--deterministic", flags.deterministic,
           "true: back end cpu-exact or an error; false: torch (cpu-exact "
           "where it can run the model, else torch)")
      .OneOf({"true", "false"});
  command
      .Arg("--threads", flags.threads,
           absl::StrCat("compute threads, 0: all (", flags.threads, ")"))
      .Threads();
}

model::OpenOptions OpenOptionsOf(const BackEndFlags& flags) {
  model::OpenOptions options;
  options.dtype = flags.dtype == "bf16" ? "bfloat16" : "float32";
  options.device = flags.device;
  options.deterministic = std::nullopt;
  if (!flags.deterministic.empty())
    options.deterministic = flags.deterministic == "true";
  return options;
}

void PrintBackEnd(const model::BackEnd& b) {
  std::fprintf(stderr, "back end %s, %s, %s\n", b.name.c_str(),
               b.device.c_str(), b.dtype.c_str());
}

}  // namespace atod::cli

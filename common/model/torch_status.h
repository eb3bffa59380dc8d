#pragma once

#include <exception>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "c10/util/Exception.h"
#include "torch/types.h"

namespace atod::model {

// Runs `f` (which returns Status or StatusOr) and turns what torch throws into
// INTERNAL "WHAT: message". The one place where exceptions are caught.
template <typename F>
auto CatchTorch(const std::string& what, F&& f) -> decltype(f()) {
  try {
    return std::forward<F>(f)();
  } catch (const c10::OutOfMemoryError& e) {
    return absl::ResourceExhaustedError(
        absl::StrCat(what, ": ", e.what_without_backtrace()));
  } catch (const c10::Error& e) {
    return absl::InternalError(
        absl::StrCat(what, ": ", e.what_without_backtrace()));
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat(what, ": ", e.what()));
  }
}

// FAILED_PRECONDITION when `device` is "cuda" and torch finds no GPU.
absl::Status CheckDevice(const std::string& device);

// "float32" / "bfloat16"; INVALID_ARGUMENT otherwise.
absl::StatusOr<torch::Dtype> ParseDtype(const std::string& dtype);
std::string DtypeName(torch::Dtype dtype);

}  // namespace atod::model

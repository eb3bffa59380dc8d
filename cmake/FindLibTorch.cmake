# LibTorch from the PyPI wheel as deploy/setup.sh unpacks it:
#   DIR/torch/{lib,include}   DIR/nvidia/cu13/lib
# Programs link libc10 and libtorch_cpu only; the CUDA plugin adds
# LibTorch::torch_cuda. torch's own CMake package is not used: it asks for a
# CUDA toolkit even for CPU programs.
set(ATOD_TORCH_VERSION 2.11.0)
if(DEFINED ENV{ATOD_CACHE})
  set(_atod_cache $ENV{ATOD_CACHE})
else()
  set(_atod_cache $ENV{HOME}/.cache/atod)
endif()
set(LIBTORCH_DIR ${_atod_cache}/libtorch-${ATOD_TORCH_VERSION}
    CACHE PATH "Folder with torch/ and nvidia/ from the wheels")

find_library(LIBTORCH_CPU torch_cpu PATHS ${LIBTORCH_DIR}/torch/lib
             NO_DEFAULT_PATH)
find_path(LIBTORCH_INCLUDE torch/csrc/api/include/torch/torch.h
          PATHS ${LIBTORCH_DIR}/torch/include NO_DEFAULT_PATH)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  LibTorch REQUIRED_VARS LIBTORCH_CPU LIBTORCH_INCLUDE
  REASON_FAILURE_MESSAGE "run deploy/setup.sh, which puts it there")

if(LibTorch_FOUND AND NOT TARGET LibTorch::torch_cpu)
  function(_libtorch_library name)
    add_library(LibTorch::${name} SHARED IMPORTED)
    set_target_properties(
      LibTorch::${name}
      PROPERTIES IMPORTED_LOCATION ${LIBTORCH_DIR}/torch/lib/lib${name}.so)
    target_include_directories(
      LibTorch::${name} SYSTEM
      INTERFACE ${LIBTORCH_INCLUDE}
                ${LIBTORCH_INCLUDE}/torch/csrc/api/include)
    target_link_options(LibTorch::${name} INTERFACE
                        -Wl,--allow-shlib-undefined)
  endfunction()
  _libtorch_library(c10)
  _libtorch_library(torch_cpu)
  target_link_libraries(LibTorch::torch_cpu INTERFACE LibTorch::c10)
  # Loops of torch's headers (at::parallel_for) run in one thread where the file
  # that has them is not compiled for OpenMP; the runtime is torch's own.
  target_compile_options(LibTorch::c10
                         INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
  target_link_libraries(LibTorch::torch_cpu
                        INTERFACE ${LIBTORCH_DIR}/torch/lib/libgomp.so.1)
  _libtorch_library(c10_cuda)
  _libtorch_library(torch_cuda)
  target_link_libraries(LibTorch::torch_cuda INTERFACE LibTorch::c10_cuda
                                                       LibTorch::torch_cpu)
endif()

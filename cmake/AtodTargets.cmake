# atod_library / atod_program / atod_test / atod_benchmark: one line a target.
#
#   atod_library(NAME [SRCS file…] [DEPS target…] [TORCH])
#   atod_program(NAME SRCS file… DEPS target… [TORCH])
#   atod_test(NAME SRCS file… DEPS target… [TORCH] [DATA])
#   atod_benchmark(NAME SRCS file… DEPS target… [TORCH])
#
# TORCH marks targets that need LibTorch; they are skipped when ATOD_TORCH is
# OFF. Libraries and tests so marked see torch's headers; programs do not. A benchmark is run once, briefly, as a test, so that it cannot rot.

find_program(ATOD_CCACHE ccache)
if(ATOD_CCACHE)
  # The base directory makes a fresh clone at another path hit the cache.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR}
      CCACHE_NOHASHDIR=1 CCACHE_SLOPPINESS=time_macros ${ATOD_CCACHE})
endif()
find_program(ATOD_MOLD mold)
if(ATOD_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Werror;-ffp-contract=off>")
if(CMAKE_UNITY_BUILD)
  # A file compiled within another is still the only one that sees its types.
  add_compile_options($<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)
endif()
if(ATOD_SANITIZE)
  add_compile_options(-fsanitize=${ATOD_SANITIZE} -fno-omit-frame-pointer
                      -fno-sanitize-recover=all)
  # g++ 12 warns wrongly about std::function in instrumented code.
  add_compile_options(-Wno-maybe-uninitialized)
  add_link_options(-fsanitize=${ATOD_SANITIZE})
endif()

# What no step of training waits for is compiled with less effort, in three
# quarters of the time. Results do not depend on it.
function(atod_cold name)
  if(TARGET ${name} AND CMAKE_BUILD_TYPE STREQUAL "Release")
    target_compile_options(${name} PRIVATE -O1)
  endif()
endfunction()

macro(_atod_parse)
  cmake_parse_arguments(ARG "TORCH;DATA" "" "SRCS;DEPS" ${ARGN})
  if(ARG_TORCH AND NOT ATOD_TORCH)
    return()
  endif()
  # Private: torch's include folder has its own fmt and protobuf, which must not
  # come before Debian's in targets that only link a library with torch inside.
  set(ARG_TORCH_DEPS)
  if(ARG_TORCH)
    set(ARG_TORCH_DEPS LibTorch::torch_cpu)
  endif()
endmacro()

function(atod_library name)
  _atod_parse(${ARGN})
  if(ARG_SRCS)
    add_library(${name} STATIC ${ARG_SRCS})
    target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
    target_link_libraries(${name} PUBLIC ${ARG_DEPS} PRIVATE ${ARG_TORCH_DEPS})
  else()
    add_library(${name} INTERFACE)
    target_include_directories(${name} INTERFACE ${CMAKE_SOURCE_DIR})
    target_link_libraries(${name} INTERFACE ${ARG_DEPS})
  endif()
endfunction()

function(atod_program name)
  _atod_parse(${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY
                                           ${CMAKE_BINARY_DIR}/bin)
  atod_cold(${name})
endfunction()

function(atod_test name)
  if(NOT BUILD_TESTING)
    return()
  endif()
  _atod_parse(${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} ${ARG_TORCH_DEPS} GTest::gmock
                                        GTest::gtest_main)
  atod_cold(${name})
  add_test(NAME ${name} COMMAND ${name}
           WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(
    ${name} PROPERTIES TIMEOUT 300 ENVIRONMENT
                       "OMP_NUM_THREADS=1;OMP_WAIT_POLICY=passive")
  if(ARG_DATA)
    # Tests of the compatibility data print this line when it is absent.
    set_tests_properties(${name} PROPERTIES SKIP_REGULAR_EXPRESSION
                                            "SKIPPED: no compatibility data")
  endif()
endfunction()

function(atod_benchmark name)
  if(NOT BUILD_TESTING)
    return()
  endif()
  _atod_parse(${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} ${ARG_TORCH_DEPS} benchmark::benchmark
                                        benchmark::benchmark_main)
  add_test(NAME ${name} COMMAND ${name} --benchmark_min_time=0.001
           WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES TIMEOUT 300)
endfunction()

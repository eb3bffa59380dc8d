// A golden file of recorded episodes, against an environment that always
// answers the same.
#include "services/envs/alfworld/golden_replay.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string path =
      atod::WriteInput("golden.json", atod::Text(data, size));
  atod::envs::Observation room;
  room.text = "You are in a room.";
  room.admissible = {"look"};
  const auto play = [&](uint32_t, const std::string&)
      -> absl::StatusOr<atod::envs::Observation> { return room; };
  const auto start =
      [&](const atod::envs::GoldenGame&,
          uint32_t) -> absl::StatusOr<atod::envs::ReplayEpisode> {
    return atod::envs::ReplayEpisode{room, play};
  };
  atod::envs::ReplayCounts counts;
  atod::envs::ReplayGolden(path, start, counts).IgnoreError();
  return 0;
}

// A game.tw-pddl as a whole, played for a few turns.
#include "services/envs/alfworld/game.h"
#include "services/envs/alfworld/world.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto game = atod::envs::ParseGame(atod::Text(data, size));
  if (!game.ok()) return 0;
  atod::envs::World world(*game);
  if (!world.Reset().ok()) return 0;
  world.Step("dance").IgnoreError();
  for (int turn = 0; turn < 4 && !world.admissible().empty(); ++turn) {
    const std::string command =
        world.admissible()[turn * 7 % world.admissible().size()];
    if (!world.Step(command).ok()) return 0;
  }
  return 0;
}

#!/usr/bin/env bash
# ALFWorld's own environment (PyPI) on games that we generate: it collects all
# of them, offers the commands of each walkthrough and says at its end that the
# game is won; feedback and admissible commands are those of our engine.
#
#   tests/peers/alfworld.sh [BUILD_DIR]
# Exit status 77 (skipped) when the packages cannot be installed.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${1:-build/release}
venv=${ATOD_CACHE:-$HOME/.cache/atod}/venv-alfworld
if [[ ! -e $venv/complete ]]; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  pip=("$venv/bin/pip" --disable-pip-version-check -q)
  # Without its dependencies: those of the visual environments are not needed.
  if ! { "${pip[@]}" install 'textworld[pddl]==1.7.0' tqdm termcolor pyyaml &&
         "${pip[@]}" install --no-deps alfworld==0.4.2; }; then
    rm -rf "$venv"
    echo "SKIPPED: pip cannot install alfworld here"; exit 77
  fi
  touch "$venv/complete"
fi
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
"$build/bin/atod" games --out "$work/games" --seed 5 \
  --train 6 --valid-seen 6 --valid-unseen 6 >"$work/log"
ALFWORLD_DATA=$work "$venv/bin/python" - "$work" >"$work/log" 2>&1 <<'PYTHON' || { cat "$work/log" >&2; exit 1; }
import json, pathlib, sys
from alfworld.agents.environment.alfred_tw_env import AlfredTWEnv

work = pathlib.Path(sys.argv[1])
config = {
    "dataset": {"data_path": f"{work}/games/train",
                "eval_id_data_path": f"{work}/games/valid_seen",
                "eval_ood_data_path": f"{work}/games/valid_unseen",
                "num_train_games": -1, "num_eval_games": -1},
    "env": {"task_types": [1, 2, 3, 4, 5, 6], "goal_desc_human_anns_prob": 0,
            "expert_type": "handcoded", "domain_randomization": False,
            "regen_game_files": False},
    "general": {"training_method": "dqn", "random_seed": 1},
    "rl": {"training": {"max_nb_steps_per_episode": 50}},
}
for split in ["train", "eval_in_distribution", "eval_out_of_distribution"]:
    collector = AlfredTWEnv(config, train_eval=split)
    assert len(collector.game_files) == 6, (split, collector.game_files)
    env = collector.init_env(batch_size=1)
    played = set()
    while len(played) < 6:
        seen, infos = env.reset()
        game = pathlib.Path(infos["extra.gamefile"][0])
        played.add(game)
        def state(won):
            return {"feedback": seen[0], "won": won,
                    "admissible_commands": list(infos["admissible_commands"][0])}
        steps = []
        episode = {"label": "solution", "initial": state(False), "steps": steps}
        for command in json.loads(game.read_text())["walkthrough"]:
            assert command in infos["admissible_commands"][0], (game, command)
            seen, score, done, infos = env.step([command])
            won = bool(infos["won"][0])
            steps.append({"command": command, "score": int(score[0]), "done": bool(done[0]),
                          **state(won)})
        assert won, game
        (game.parent / "alfworld.golden.json").write_text(json.dumps(
            {"game": game.name, "demangled": True, "engine": "alfworld 0.4.2", "episodes": [episode]}))
PYTHON
"$build/bin/atod" replay-env --golden "$work"/games/*/*/*/alfworld.golden.json

#!/usr/bin/env python3
"""Plays one game in TextWorld, records it for `atod replay-env` and times it.

usage: textworld_speed.py GAME.tw-pddl OUT_DIR STEPS

Copies the game to OUT_DIR, writes NAME.golden.json beside it (names as bare
ids: the demangler is ALFWorld's, not TextWorld's) and prints {"load_ms",
"reset_ms", "steps_per_second"}. The walk takes random admissible commands, one
in sixteen of them spoilt.
"""
import json
import pathlib
import random
import shutil
import sys
import time

import textworld


def main():
    path, out, steps = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
    shutil.copy(path, out)
    infos = textworld.EnvInfos(feedback=True, won=True, admissible_commands=True)
    begin = time.perf_counter()
    env = textworld.start(str(path), infos)
    loaded = time.perf_counter()
    state = env.reset()
    reset = time.perf_counter()

    def view():
        return {"feedback": state.feedback, "won": bool(state.won),
                "admissible_commands": state.admissible_commands}

    rng = random.Random(0)
    played, seconds = [], 0.0
    episode = {"label": "walk", "initial": view(), "steps": played}
    for _ in range(steps):
        command = rng.choice(state.admissible_commands)
        if rng.random() < 1 / 16:
            command += " 7"
        start = time.perf_counter()
        state, score, done = env.step(command)
        seconds += time.perf_counter() - start
        played.append({"command": command, "score": score, "done": bool(done), **view()})
        if done:
            break
    golden = {"game": path.name, "demangled": False, "episodes": [episode]}
    (out / (path.stem + ".golden.json")).write_text(json.dumps(golden))
    print(json.dumps({"load_ms": (loaded - begin) * 1e3, "reset_ms": (reset - loaded) * 1e3,
                      "steps_per_second": len(played) / seconds}))


main()

#!/usr/bin/env python3
"""Plays generated household games in TextWorld and records what it says.

Run by record_goldens.sh, in a Python that has textworld[pddl]. For each game
it writes NAME.tw-pddl (the game as it is) and NAME.golden.json: one episode
with the walkthrough, random walks with some senseless commands, and one that
tries what is easily got wrong.
"""
import argparse
import json
import pathlib
import random
import re
import shutil
from importlib import metadata

import textworld
from textworld.core import EnvInfos
from textworld.envs.pddl import PddlEnv

RANDOM_STEPS = 40
SENSELESS = ["wait", "go to nowhere", "Look", "open", "take apple 9 from fridge 1"]


class DisplayNames(textworld.core.Wrapper):
    """Names entities as ALFWorld does: ids are sorted, and within a class
    (what stands before the first _bar_, plus "basin" where the id says so)
    the first gets the highest number. An id without _bar_ keeps its text."""

    def load(self, *args, **kwargs):
        super().load(*args, **kwargs)
        entities = self._wrapped_env._entity_infos
        classes = {}
        for entity in sorted(entities):
            if "_bar_" not in entity:
                entities[entity].name = entity + " "
                continue
            name = entity.split("_bar_")[0]
            name += "basin" if "basin" in entity else ""
            classes.setdefault(name, []).append(entity)
        for name, members in classes.items():
            for i, entity in enumerate(members):
                entities[entity].name = f"{name} {len(members) - i}"


class Recorder:
    def __init__(self, game):
        self.env = DisplayNames(PddlEnv(EnvInfos(admissible_commands=True)))
        self.env.load(str(game))
        self.episodes = []

    def start(self, label):
        self.state = self.env.reset()
        self.episode = {
            "label": label,
            "initial": {
                "feedback": self.state.feedback,
                "admissible_commands": list(self.state.admissible_commands),
                "won": bool(self.state.won),
            },
            "steps": [],
        }
        self.episodes.append(self.episode)

    @property
    def admissible(self):
        return list(self.state.admissible_commands)

    @property
    def over(self):
        return bool(self.state.won)

    def step(self, command):
        if self.over:
            return
        self.state, score, done = self.env.step(command)
        self.episode["steps"].append({
            "command": command,
            "feedback": self.state.feedback,
            "score": int(score),
            "done": bool(done),
            "won": bool(self.state.won),
            "admissible_commands": self.admissible,
        })


def quirks(play, walkthrough):
    """What is easily got wrong, ended by the walkthrough."""
    play.start("quirks")
    for command in ["look", "help", "Look", " inventory ", "inventory", "go to loc 1"]:
        play.step(command)
    places = [c[len("go to "):] for c in play.admissible if c.startswith("go to ")]
    doors = [p for p in places
             if p.split()[0] in ("cabinet", "drawer", "fridge", "microwave", "safe")]
    # Going where one stands; opening twice; closing; examining both states.
    for place in doors[:2]:
        for command in ["go to {}", "go to {}", "look", "close {}", "examine {}",
                        "open {}", "open {}", "examine {}", "close {}", "close {}"]:
            play.step(command.format(place))
    carried = 0
    for place in places:
        play.step(f"go to {place}")
        play.step(f"open {place}")
        for take in [c for c in play.admissible if c.startswith("take ")][:2]:
            thing = re.fullmatch(r"take (.*) from (.*)", take).group(1)
            # Examining needs the hand.
            play.step(f"examine {thing}")
            play.step(take)
            play.step("inventory")
            play.step(f"examine {thing}")
            play.step(take)
            # Appliances work closed, and only for what they are made for.
            for verb, appliance in [("heat", "microwave 1"), ("examine", None),
                                    ("clean", "sinkbasin 1"), ("examine", None),
                                    ("cool", "fridge 1"), ("examine", None)]:
                if appliance is None:
                    play.step(f"examine {thing}")
                elif appliance in places:
                    play.step(f"go to {appliance}")
                    play.step(f"{verb} {thing} with {appliance}")
            # A blade cuts what is in sight.
            if thing.split()[0] in ("knife", "butterknife"):
                for other in places[:6]:
                    play.step(f"go to {other}")
                    for cut in [c for c in play.admissible if c.startswith("slice ")]:
                        play.step(cut)
            play.step(f"go to {place}")
            play.step(f"move {thing} to {place}")
            play.step(f"examine {place}")
            carried += 1
        for use in [c for c in play.admissible if c.startswith("use ")]:
            play.step(use)
            play.step(use)
        if carried >= 6 or play.over:
            break
    for command in walkthrough:
        play.step(command)


def record(game, name, out):
    data = json.loads(game.read_text())
    play = Recorder(game)
    play.start("solution")
    for command in data["walkthrough"]:
        play.step(command)
    assert play.over, f"{name}: the walkthrough does not win"
    for k in range(2):
        play.start(f"random-{k}")
        rng = random.Random(k)
        for _ in range(RANDOM_STEPS):
            senseless = rng.random() < 0.06
            play.step(rng.choice(SENSELESS if senseless else play.admissible))
    quirks(play, data["walkthrough"])
    shutil.copy(game, out / f"{name}.tw-pddl")
    golden = {
        "game": f"{name}.tw-pddl",
        "demangled": True,
        "engine": f"TextWorld {metadata.version('textworld')} PddlEnv, "
                  f"fast-downward-textworld "
                  f"{metadata.version('fast-downward-textworld')}, "
                  "ALFWorld's numbering of names",
        "episodes": play.episodes,
    }
    (out / f"{name}.golden.json").write_text(json.dumps(golden, indent=0) + "\n")
    steps = sum(len(e["steps"]) for e in play.episodes)
    print(f"{name}: {len(play.episodes)} episodes, {steps} steps", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--games", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--type", help="only games of this task type, one")
    parser.add_argument("--each-type", type=int, default=1)
    parser.add_argument("--more", type=int, default=0, help="games of any type on top")
    parser.add_argument("--prefix", default="")
    args = parser.parse_args()

    rows = json.loads((args.games / "manifest.json").read_text())["splits"]["train"]
    if args.type:
        rows = [row for row in rows if row["task_type"] == args.type]
    chosen, rest, counts = [], [], {}
    for row in rows:
        counts[row["task_type"]] = counts.get(row["task_type"], 0) + 1
        (chosen if counts[row["task_type"]] <= args.each_type else rest).append(row)
    for row in chosen + rest[:args.more]:
        path = pathlib.Path(row["path"])
        name = args.prefix + path.parts[1] + "-" + row["scene_hash"][:6]
        record(args.games / path, name, args.out)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Audit commands against the compatibility data.   tests/cli/compat.py BUILD

Every recorded ALFWorld prompt through `atod prompt`, every recorded projection
through `atod project`; exit status 77 without the data.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

data = pathlib.Path(os.environ.get("ATOD_COMPAT_DATA", "../shared/data"))
if not data.is_dir():
    print("SKIPPED: no compatibility data")
    sys.exit(77)


def atod(*args, lines=()):
    done = subprocess.run([pathlib.Path(sys.argv[1]) / "bin/atod", *args], text=True, check=True, stdout=subprocess.PIPE,
                          input="".join(json.dumps(line) + "\n" for line in lines))
    return [json.loads(line) for line in done.stdout.splitlines()]


def between(text, start, end):
    begin = text.index(start) + len(start)
    return text[begin:text.index(end, begin)]


turns, wanted = [], []
for episode in json.loads((data / "verl-agent-prompts/prompts_golden.json").read_text())["alfworld"]:
    prompt, history = episode["prompt0"], []
    observation = between(prompt, "current observation is: ", "\nYour admissible")
    for step in [*episode["steps"], None]:
        admissible = between(prompt, "situation are: ['", "'].").split("'\n '") + ["help"]
        turns.append({"task": episode["task"], "step": len(history), "history": list(history),
                      "observation": observation, "admissible": admissible})
        wanted.append({"prompt": prompt})
        if step:
            prompt = step["prompt"]
            action = between(prompt, f"Action {len(history) + 1}: '", "']")
            history.append({"observation": observation, "action": action})
            observation = step["anchor"]
with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
    file.writelines(json.dumps(turn) + "\n" for turn in turns)
    file.flush()
    found = atod("prompt", "--env", "alfworld", "--prompt-set", "released", "--input", file.name)
assert len(wanted) > 9 and found == wanted, "prompts differ"

projections = json.loads((data / "alfworld-golden/projection_golden.json").read_text())
for found, want in zip(atod("project", "--env", "alfworld", lines=projections), projections, strict=True):
    assert found == {"action": want["action"], "valid": bool(want["valid"])}, (found, want)
print(f"compat: {len(wanted)} prompts, {len(projections)} projections, ok")

#!/usr/bin/env python3
"""Growing against windowed on the embedded task: tokens that each process
computes, time, and success.

  docs/results/layouts.py --bin build/release/bin [--steps N] [--write]

Prepares both layouts with deploy/up.sh (data/embedded, data/embedded-growing;
minutes the first time), trains N steps of each with the same tasks and seed,
reads the counters of every process from its /metrics while it runs, plays the
held-out games with the last checkpoint, and prints one table. Takes the ports
of deploy/configs/embedded.yaml.
"""
import argparse
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
PORTS = {"rollout": 9710, "teacher": 9702}


def counters(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as page:
            lines = page.read().decode().splitlines()
    except OSError:
        return {}
    out = {}
    for line in lines:
        found = re.match(r"^(atod_\w+)(?:\{[^}]*\})? (\S+)$", line)
        if found:
            out[found[1]] = out.get(found[1], 0) + float(found[2])
    return out


class Watch(threading.Thread):
    """The last counters that each process showed."""

    def __init__(self):
        super().__init__(daemon=True)
        self.last, self.over = {name: {} for name in PORTS}, threading.Event()

    def run(self):
        while not self.over.wait(0.5):
            for name, port in PORTS.items():
                self.last[name].update(counters(port))


def wilson(wins, n, z=1.96):
    p, d = wins / n, 1 + z * z / n
    mid = (p + z * z / (2 * n)) / d
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / d
    return mid - half, mid + half


def run(layout, args):
    env = dict(os.environ, ATOD_BIN=str(args.bin.resolve()))
    work = ROOT / ("data/embedded" if layout == "windowed" else "data/embedded-growing")
    subprocess.run([ROOT / "deploy/up.sh", "--layout", layout, "--prepare-only"], env=env, check=True)
    name = f"layouts-{layout}"
    shutil.rmtree(ROOT / "runs" / name, ignore_errors=True)
    sets = [f"name={name}", f"steps={args.steps}", "eval.every=0", f"model.path={work}/student",
            f"teachers.0.path={work}/teacher", f"env.data={work}/games"]
    if layout == "growing":
        sets += ["layout=growing", "model.max_context=768"]
    config = ["--config", str(ROOT / "deploy/configs/embedded.yaml")]
    for value in sets:
        config += ["--set", value]
    watch = Watch()
    watch.start()
    begin = time.monotonic()
    subprocess.run([args.bin / "atod", "up", *config], cwd=ROOT, check=True)
    seconds = time.monotonic() - begin
    watch.over.set()
    watch.join()
    steps = [json.loads(line) for line in (ROOT / "runs" / name / "metrics.jsonl").read_text().splitlines()]
    steps = [s for s in steps if "actor/sequence_tokens" in s]
    rollout, teacher = watch.last["rollout"], watch.last["teacher"]
    out = {
        "episodes": rollout["atod_rollout_episodes_total"],
        "turns": sum(s["episode/length"] for s in steps) / len(steps),
        "rollout": rollout["atod_rollout_computed_prompt_tokens_total"] + rollout["atod_rollout_tokens_total"],
        "teacher": teacher["atod_teacher_tokens_total"] - teacher.get("atod_teacher_cached_tokens_total", 0),
        "learner": sum(s["actor/sequence_tokens"] for s in steps),
        "seconds": seconds,
        "ends": rollout.get("atod_rollout_context_ends_total", 0),
    }
    for which, model in (("before", work / "student"), ("after", ROOT / "runs" / name / "checkpoints/last/model")):
        lines = ROOT / "runs" / name / f"{which}.jsonl"
        subprocess.run([args.bin / "atod", "eval", *config, "--model", model, "--games", work / "games",
                        "--split", "valid_unseen", "--count", "300", "--seed", "7", "--out", lines],
                       cwd=ROOT, check=True)
        played = [json.loads(line) for line in lines.read_text().splitlines()]
        played = [p for p in played if "error" not in p]
        wins = sum(p["success"] for p in played)
        out[which] = (wins / len(played), *wilson(wins, len(played)))
    return out


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--bin", type=pathlib.Path, default=ROOT / "build/release/bin")
    flags.add_argument("--steps", type=int, default=20)
    flags.add_argument("--write", action="store_true", help="docs/results/layouts.md")
    args = flags.parse_args()
    w, g = (run(layout, args) for layout in ("windowed", "growing"))
    lines = ["| | windowed | growing | windowed / growing |", "|---|---|---|---|"]
    for key, text in (("episodes", "training episodes"), ("turns", "turns an episode"),
                      ("rollout", "tokens computed by the rollout"), ("teacher", "by the teacher"),
                      ("learner", "by one pass of the learner"), ("seconds", "seconds of the run"),
                      ("ends", "episodes that filled their context")):
        ratio = f"{w[key] / g[key]:.2f}" if g[key] else ""
        form = "{:,.1f}" if key in ("turns", "seconds") else "{:,.0f}"
        lines.append(f"| {text} | {form.format(w[key])} | {form.format(g[key])} | {ratio} |")
    for key, text in (("rollout", "rollout"), ("teacher", "teacher"), ("learner", "learner")):
        a, b = (r[key] / (r["episodes"] * r["turns"]) for r in (w, g))
        lines.append(f"| tokens a turn, {text} | {a:.1f} | {b:.1f} | {a / b:.2f} |")
    for key, text in (("before", "held-out success before, % [95 %]"), ("after", f"after {args.steps} steps")):
        cells = ["{:.1f} [{:.1f}, {:.1f}]".format(*(100 * x for x in r[key])) for r in (w, g)]
        lines.append(f"| {text} | {cells[0]} | {cells[1]} | |")
    table = "\n".join(lines)
    print(table)
    if args.write:
        page = ROOT / "docs/results/layouts.md"
        page.write_text(
            "# Growing against windowed\n\nThe embedded task in both [layouts](../layouts.md), "
            f"{args.steps} training steps with the same tasks and seed, then 300 held-out games of valid_unseen:\n\n"
            f"    docs/results/layouts.py --steps {args.steps} --write\n\n{table}\n\n"
            "Each layout has its own student and teacher, taught on demonstrations in that layout with the same "
            "budget of updates. The growing prompt shows an observation only: what was checked before, which the "
            "windowed prompt lists, is to be found in the episode. Tokens of the rollout are those that its engine "
            "computed, prompts and responses; a group's common first prompt counts once.\n")


main()

#!/usr/bin/env python3
"""What the algorithm part (all pieces: statistics, weights, advantages) takes of the step it belongs to.

  docs/results/algorithm.py BENCHMARK RUN...   writes docs/results/algorithm.md

BENCHMARK is the program algorithm_benchmark; RUN a folder of runs/. The benchmark's step has 128 trajectories x 50 turns x 150
tokens; the step around it is taken from the runs, whose model is the smallest one there is reason to train.
"""
import json
import os
import pathlib
import subprocess
import sys

TOKENS = 128 * 50 * 150


def median(values):
    values = sorted(values)
    return values[len(values) // 2]


def main(benchmark, runs):
    if not os.access(benchmark, os.X_OK):
        sys.exit(f"error: docs/results/algorithm.py: {benchmark}: found no program, expected algorithm_benchmark")
    steps = []
    for run in runs:
        lines = (pathlib.Path(run) / "timings.jsonl").read_text().splitlines()
        steps += [s for s in map(json.loads, lines) if s.get("timing/step_seconds")]
    speed = median(s["throughput/tokens_per_second"] for s in steps)
    least = TOKENS / speed
    out = subprocess.run([benchmark, "--benchmark_filter=ComputeAdvantages", "--benchmark_repetitions=5",
                          "--benchmark_report_aggregates_only", "--benchmark_format=json"],
                         check=True, capture_output=True, text=True).stdout
    rows = [b for b in json.loads(out)["benchmarks"] if b["aggregate_name"] == "median"]
    share = sum(s["timing/advantage_seconds"] for s in steps) / sum(s["timing/step_seconds"] for s in steps)
    worst = max(s["timing/advantage_seconds"] / s["timing/step_seconds"] for s in steps)
    text = ["# The algorithm part of a step", "",
            f"Made by `docs/results/algorithm.py {os.path.relpath(benchmark)} {' '.join(runs)}`.", "",
            f"128 trajectories x 50 turns x 150 tokens, {TOKENS} tokens, one CPU core, median of 5 repetitions. The step is what these tokens "
            f"alone, without their prompts, take at the median speed of {len(steps)} steps of the runs, {speed:.0f} tokens/s: {least:.1f} s.", "",
            "| benchmark | CPU ms | % of the step |", "|---|---:|---:|"]
    for b in rows:
        text.append(f"| {b['run_name'].split('/', 1)[1]} | {b['cpu_time']:.1f} | {b['cpu_time'] / 1000 / least * 100:.3f} |")
    text += ["", f"In the runs themselves, `timing/advantage_seconds` is {100 * share:.4f} % of `timing/step_seconds`; {100 * worst:.4f} % in the step "
             "where it is most.", ""]
    pathlib.Path(__file__).with_suffix(".md").write_text("\n".join(text))
    print("\n".join(text))


if len(sys.argv) < 3 or sys.argv[1].startswith("-"):
    print(__doc__, file=sys.stderr)
    sys.exit(2)
main(sys.argv[1], sys.argv[2:])

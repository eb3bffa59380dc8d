#!/usr/bin/env python3
"""Real sizes on the CPU, random weights: two steps of `atod up` with a 0.6B
student and teacher in bfloat16, memory of a long score, and how far rollouts
are from the learner in each back end.

  docs/results/real_size.py TOKENIZER_DIR [--bin build/release/bin] [--work DIR] [--write]

TOKENIZER_DIR has Qwen3's tokenizer.json (tests/peers/qwen_tokenizer.py makes
one). Needs data/embedded (deploy/up.sh --prepare-only), 12 GB of disk in
--work and 20 GB of memory. Takes the ports of deploy/configs/embedded.yaml.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]
GIB = 2**30


class Peaks(threading.Thread):
    """Most resident memory of each atod process, by its name."""

    def __init__(self):
        super().__init__(daemon=True)
        self.most, self.over = {}, threading.Event()

    def run(self):
        while not self.over.wait(0.2):
            for status in pathlib.Path("/proc").glob("[0-9]*/status"):
                try:
                    text = status.read_text()
                except OSError:
                    continue
                name = re.search(r"^Name:\s+(atod-\w+)", text, re.M)
                peak = re.search(r"^VmHWM:\s+(\d+) kB", text, re.M)
                if name and peak:
                    self.most[name[1]] = max(self.most.get(name[1], 0), int(peak[1]) * 1024)


def atod(args, *words, **more):
    return subprocess.run([args.bin / "atod", *map(str, words)], cwd=ROOT, check=True, text=True, **more)


def make_models(args):
    for name, seed in (("student", 1), ("teacher", 2)):
        if not (args.work / name / "model.safetensors").exists():
            atod(args, "init-model", "--config", ROOT / "tests/gpu/config-0.6b.json", "--tokenizer", args.tokenizer,
                 "--init", "hf", "--seed", seed, "--out", args.work / name)


def up(args, name, steps, **sets):
    shutil.rmtree(ROOT / "runs" / name, ignore_errors=True)
    sets = {"name": name, "steps": steps, "eval.every": 0, **sets}
    words = ["--config", "deploy/configs/embedded.yaml"]
    for key, value in sets.items():
        words += ["--set", f"{key}={value}"]
    plan = atod(args, "up", *words, "--dry-run", capture_output=True).stdout
    peaks = Peaks()
    peaks.start()
    atod(args, "up", *words)
    peaks.over.set()
    peaks.join()
    run = ROOT / "runs" / name
    read = lambda file: [json.loads(line) for line in (run / file).read_text().splitlines()]
    return plan, peaks.most, read("metrics.jsonl"), read("timings.jsonl")


def whole_run(args):
    plan, peaks, _, timings = up(
        args, "real-size", 2, **{
            "model.path": args.work / "student", "teachers.0.path": args.work / "teacher",
            "env.data": "data/embedded/games", "model.dtype": "bfloat16", "env.max_turns": 4,
            "model.max_context": 256, "sampling.train.max_tokens": 16, "algorithm.tasks_per_step": 2,
            "algorithm.group_size": 4, "optimizer.updates_per_step": 1, "optimizer.micro_batch_tokens": 1024,
            "optimizer.lr": 1e-6, "rollout.slots": 8, "checkpoint.keep_weights": "false", "threads.rollout": 2,
            "threads.teacher": 2})
    lines = ["| process | plan, GiB | peak resident, GiB (libraries, and pages of files that were read or written, included) |", "|---|---|---|"]
    for process in ("learner", "rollout", "teacher"):
        planned = re.search(rf"^  {process}: ([\d.]+) GiB", plan, re.M)
        lines.append(f"| {process} | {planned[1]} | {peaks[f'atod-{process}'] / GIB:.1f} |")
    lines += ["", "| phase, seconds | " + " | ".join(f"step {t['step']}" for t in timings) + " |",
              "|---" * (len(timings) + 1) + "|"]
    keys = [k for k in timings[-1] if k.startswith("timing/") and any(k in t for t in timings)]
    for key in keys:
        cells = [f"{t[key]:.2f}" if key in t else "" for t in timings]
        lines.append(f"| {key.removeprefix('timing/').removesuffix('_seconds')} | " + " | ".join(cells) + " |")
    return lines


def long_score(args):
    out = []
    for tokens in (16, 8192):
        printed = atod(args, "bench", "score", "--model", args.work / "student", "--dtype", "bf16", "--batch", 1,
                       "--prompt", 1, "--new", tokens - 1, capture_output=True).stdout
        out.append(json.loads(printed.splitlines()[-1])["peak_bytes"])
    weights = 2 * 596049920
    return [f"`atod bench score --dtype bf16 --batch 1 --prompt 1 --new 8191`, all tokens scored with 151,936 words: peak "
            f"{out[1] / GIB:.2f} GiB, of which the weights are {weights / GIB:.2f} GiB and the program with 16 tokens "
            f"{out[0] / GIB:.2f} GiB: {(out[1] - weights) / GIB:.2f} GiB above the weights."]


def mismatch(args):
    lines = ["| back end | dtype | mean of abs(log pi_rollout - log pi_old) | largest |", "|---|---|---|---|"]
    for back_end, dtype, exact in (("cpu-exact", "float32", "true"), ("torch", "float32", "false"),
                                   ("torch", "bfloat16", "false")):
        for layout in ("windowed", "growing"):
            work = "data/embedded" + ("-growing" if layout == "growing" else "")
            if not (ROOT / work / "student").exists():
                continue
            _, _, metrics, _ = up(args, "mismatch", 2, **{
                "model.path": f"{work}/student", "teachers.0.path": f"{work}/teacher",
                "env.data": f"{work}/games", "model.dtype": dtype, "deterministic": exact, "layout": layout,
                "model.max_context": 768 if layout == "growing" else 160})
            mean = max(m.get("rollout/mismatch_abs_mean", 0) for m in metrics)
            largest = max(m.get("rollout/mismatch_abs_max", 0) for m in metrics)
            lines.append(f"| {back_end}, {layout} | {dtype} | {mean:.2g} | {largest:.2g} |")
    return lines


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("tokenizer", type=pathlib.Path)
    flags.add_argument("--bin", type=pathlib.Path, default=ROOT / "build/release/bin")
    flags.add_argument("--work", type=pathlib.Path, default=ROOT / "data/real-size")
    flags.add_argument("--only", default="run,score,mismatch")
    flags.add_argument("--write", action="store_true", help="docs/results/real-size.md")
    args = flags.parse_args()
    args.bin, args.work, args.tokenizer = (p.resolve() for p in (args.bin, args.work, args.tokenizer))
    args.work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    make_models(args)
    cores = os.cpu_count()
    parts = {"run": (f"Two steps of `atod up`, random Qwen3-0.6B as student and teacher, bfloat16, {cores} cores", whole_run),
             "score": ("A long sequence", long_score),
             "mismatch": ("Rollout against learner, the embedded task, two steps", mismatch)}
    text = ""
    for name in args.only.split(","):
        title, make = parts[name]
        text += f"\n## {title}\n\n" + "\n".join(make(args)) + "\n"
        print(text.rsplit("\n## ", 1)[1], flush=True)
    if args.write:
        (ROOT / "docs/results/real-size.md").write_text(
            "# Real sizes on the CPU\n\n    docs/results/real_size.py TOKENIZER_DIR --write\n" + text)


main()

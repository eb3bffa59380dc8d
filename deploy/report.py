#!/usr/bin/env python3
"""The table and curve of deploy/up.sh as Markdown and SVG; every number is read from the run's files.

  deploy/report.py RUN_DIR [OUT]   OUT.md and OUT.svg (default RUN_DIR/report)

`atod report` makes the page with everything else, and compares runs. Needs Python's standard library and gnuplot.
"""
import json
import math
import os
import pathlib
import random
import subprocess
import sys

SPLITS = ["valid_unseen", "valid_seen"]
ROWS = [
    ("random", "random admissible actions"),
    ("untrained", "untrained student"),
    ("teacher", "teacher"),
    ("trained-last", "trained student, last checkpoint"),
    ("trained-last-t1", "trained student, last checkpoint, T = 1"),
    ("trained-best", "trained student, best checkpoint"),
    ("planner", "planner"),
]
RESAMPLES = 10000


def fail(message):
    print(f"error: deploy/report.py: {message}", file=sys.stderr)
    sys.exit(2)


def read_jsonl(path):
    try:
        return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]
    except FileNotFoundError:
        fail(f"{path}: found nothing, expected a file that the run writes")
    except json.JSONDecodeError as e:
        fail(f"{path}:{e.lineno}: found {e.msg}, expected one JSON object a line")


def read_steps(run):
    """metrics.jsonl with the times of timings.jsonl."""
    times = {t["step"]: t for t in read_jsonl(run / "timings.jsonl")}
    return [{**times.get(s["step"], {}), **s} for s in read_jsonl(run / "metrics.jsonl")]


def wilson(wins, n, z=1.96):
    """95 % interval of a proportion (Wilson)."""
    p = wins / n
    mid = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return mid - half, mid + half


def paired(a, b):
    """Mean of a - b over the same games with a bootstrap 95 % interval."""
    if [g["task_id"] for g in a] != [g["task_id"] for g in b]:
        fail("paired rows: found different games, expected the same list")
    d = [int(x["success"]) - int(y["success"]) for x, y in zip(a, b)]
    rng = random.Random(0)
    means = sorted(sum(rng.choices(d, k=len(d))) / len(d) for _ in range(RESAMPLES))
    return (sum(d) / len(d), means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1])


def pct(x):
    return f"{100 * x:.1f}"


def success_table(run):
    games = {}
    lines = ["| policy | " + " | ".join(f"{s}: success % [95 %] | turns" for s in SPLITS) + " |",
             "|---|" + "---:|---:|" * len(SPLITS)]
    for key, label in ROWS:
        cells = []
        for split in SPLITS:
            rows = games[key, split] = read_jsonl(run / "evals" / f"{key}-{split}.jsonl")
            wins, n = sum(r["success"] for r in rows), len(rows)
            low, high = wilson(wins, n)
            turns = sum(r["length"] for r in rows) / n
            cells.append(f"{pct(wins / n)} [{pct(low)}, {pct(high)}] | {turns:.1f}")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    n = len(games["teacher", SPLITS[0]])
    lines += ["", f"{n} games a split, the same for every row, played at T = 0.4 where nothing else is said; intervals: Wilson.",
              "", "| student - teacher, points | " + " | ".join(SPLITS) + " |", "|---|" + "---:|" * len(SPLITS)]
    for key in ("trained-last", "trained-best"):
        cells = []
        for split in SPLITS:
            mean, low, high = paired(games[key, split], games["teacher", split])
            cells.append(f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]")
        lines.append(f"| {dict(ROWS)[key]} | " + " | ".join(cells) + " |")
    lines += ["", f"Paired by game; 95 % intervals from {RESAMPLES} bootstrap resamples.", "",
              "| success % by task type, " + SPLITS[0] + " | " + " | ".join(k for k, _ in ROWS) + " |",
              "|---|" + "---:|" * len(ROWS)]
    types = sorted({r["category"] for r in games["teacher", SPLITS[0]]})
    for t in types:
        cells = []
        for key, _ in ROWS:
            rows = [r for r in games[key, SPLITS[0]] if r["category"] == t]
            cells.append(pct(sum(r["success"] for r in rows) / len(rows)))
        lines.append(f"| {t} | " + " | ".join(cells) + " |")
    return lines


def series(steps, tag):
    return [(s["step"], s[tag]) for s in steps if isinstance(s.get(tag), (int, float))]


def gnuplot(script):
    subprocess.run(["gnuplot"], input=script, text=True, check=True)


def block(name, points):
    return f"${name} << EOD\n" + "".join(f"{x} {y}\n" for x, y in points) + "EOD\n"


def curve(run, steps, out):
    """Success at T = 1 (training rollouts) and T = 0.4 (evaluation), and the two coefficients."""
    script = block("rollout", [(x, 100 * y) for x, y in series(steps, "episode/success_rate")])
    script += block("val", [(x, 100 * y) for x, y in series(steps, "val/success_rate")])
    script += block("kl", series(steps, "hybrid/kl_coef")) + block("rl", series(steps, "hybrid/rl_coef"))
    teacher = read_jsonl(run / "evals" / "teacher-valid_seen.jsonl")
    level = 100 * sum(r["success"] for r in teacher) / len(teacher)
    script += f"""
set terminal svg noenhanced size 900,620 font "sans,13" background "white"
set output "{out}"
set multiplot layout 2,1
set grid
set key bottom right
set xlabel "step"
set ylabel "success, %"
set yrange [0:100]
set title "{run.name}: learning curve"
plot $rollout with lines lw 1 lc rgb "#9ecae1" title "training rollouts, T = 1", \\
     $val with linespoints lw 2 pt 7 ps 0.5 lc rgb "#08519c" title "evaluation panel, T = 0.4", \\
     {level} with lines dt 2 lc rgb "#555555" title "teacher, valid seen, T = 0.4"
set ylabel "coefficient"
set yrange [0:*]
set title "hybrid/kl_coef and hybrid/rl_coef"
set key center right
plot $kl with lines lw 2 lc rgb "#d94801" title "kl_coef", $rl with lines lw 2 lc rgb "#238b45" title "rl_coef"
unset multiplot
"""
    gnuplot(script)


def report(run, out):
    steps = read_steps(run)
    curve(run, steps, f"{out}.svg")
    trained = [s for s in steps if s.get("timing/step_seconds")]
    spent = sum(s.get(f"timing/{part}_seconds") or 0 for s in steps for part in ("step", "eval"))
    seconds = json.loads((run / "seconds.json").read_text())
    lines = [f"# The embedded default: run {run.name}", "",
             f"Made by `deploy/up.sh`, table and curve by `deploy/report.py {os.path.relpath(run)}` from the run's files.", "",
             *success_table(run), "", f"![learning curve]({os.path.basename(out)}.svg)", "",
             f"On {seconds['cores']} cores: {seconds['prepare']} s for games, demonstrations, tokenizer and SFT of teacher and student "
             f"(as measured when they were made), {spent:.0f} s for {len(trained)} steps of training and their evaluations (the learner's clock).", "",
             "## The games", "", "```", (run / "games.txt").read_text().rstrip(), "```", ""]
    pathlib.Path(f"{out}.md").write_text("\n".join(lines))
    print("\n".join(lines[4:]))


def main(args):
    if len(args) in (1, 2) and not args[0].startswith("-"):
        run = pathlib.Path(args[0])
        if not run.is_dir():
            fail(f"{run}: found no such folder, expected a run folder")
        report(run, args[1] if len(args) == 2 else str(run / "report"))
    else:
        print(__doc__, file=sys.stderr)
        sys.exit(2)


main(sys.argv[1:])

#!/usr/bin/env python3
"""What tests/chaos/run.sh runs; see there."""
import argparse
import os
import pathlib
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
from loop import check, children, free_ports, make_inputs, run_atod, steps_of, wait_for  # noqa: E402

STEPS = 8
# Point -> the pass at which the process dies: in the middle of the run.
POINTS = {
    "incarnation-started": 1, "lease-granted": 20, "submit-received": 60, "spool-written": 12, "ledger-committed": 14,
    "group-complete": 24, "update-done": 5, "step-consumed": 5, "version-published": 6, "step-recorded": 6,
    "checkpoint-data-written": 2, "manifest-renamed": 2, "swap-installed": 4,
}
RESULTS = ROOT / "docs/results/chaos.md"
PAGE = """# Kills

Made by the commands below: small runs whose processes die by SIGKILL. After each, `metrics.jsonl`, the digests of the ledger,
log-probs and advantages of every trained token, evaluations, final weights and optimiser have the same bytes as in the
unbroken run, `atod check-ledger` is content, and `issued = consumed + dropped + superseded + in flight`, counted table by
table (training and evaluation). The seconds are those of a machine that had other work, too.
"""


def copy_programs(build, to):
    """The product's programs, but learner and worker with kill points. `atod up` looks for the others where it lies itself."""
    to.mkdir()
    for name, path in {"atod": "bin/atod", "atod-envs": "bin/atod-envs", "atod-teacher": "bin/atod-teacher",
                       "atod-learner": "bin/atod-learner-chaos", "atod-rollout": "bin/atod-rollout-chaos"}.items():
        shutil.copy2(build / path, to / name)


def check_products(build):
    for name in ("atod-learner", "atod-rollout"):
        product, chaos = ((build / "bin" / f"{name}{suffix}").read_bytes() for suffix in ("", "-chaos"))
        traces = [b"ATOD_KILL_AT", b"ATOD_KILL_FILE", b"checkpoint-data-written"]
        check(all(t not in product for t in traces), f"{name} has no trace of the kill points")
        check(all(t in chaos for t in traces), f"{name}-chaos has them")


class Run:
    """One run under `atod up` in a folder of its own."""

    def __init__(self, work, name, kill_at=None):
        ports = free_ports(3)
        self.work, self.folder = work, work / "runs" / name
        sets = {
            "name": name, "runs_dir": work / "runs", "steps": STEPS, "seed": 3,
            "model.path": work / "student", "teachers.0.path": work / "teacher", "env.data": work / "games",
            "rpc.learner": f"127.0.0.1:{ports[0]}", "rpc.teacher": f"127.0.0.1:{ports[1]}", "rpc.envs": f"127.0.0.1:{ports[2]}",
            "metrics.learner_port": 0, "metrics.teacher_port": 0, "metrics.envs_port": 0, "metrics.rollout_port": 0,
            "env.max_turns": 8,
            # Students this weak never win: invalid actions make the rewards differ.
            "algorithm.profile": "paper", "algorithm.invalid_action_penalty": 0.1,
            "algorithm.tasks_per_step": 4, "algorithm.group_size": 4, "optimizer.updates_per_step": 2,
            "eval.panel_size": 6, "eval.every": 4, "checkpoint.every": 3, "checkpoint.keep": 1, "rollout.workers": 2,
            "rollout.slots": 12, "threads.learner": 1,
        }
        args = [str(work / "bin/atod"), "up", "--config", str(ROOT / "deploy/configs/embedded.yaml")]
        for key, value in sets.items():
            args += ["--set", f"{key}={value}"]
        env = dict(os.environ)
        self.kill_file = work / f"{name}.killed"
        if kill_at:
            env |= {"ATOD_KILL_AT": kill_at, "ATOD_KILL_FILE": str(self.kill_file)}
        self.log = work / f"{name}.log"
        self.begin = time.time()
        self.process = subprocess.Popen(args, env=env, stdout=open(self.log, "w"), stderr=subprocess.STDOUT)

    def step(self):
        """The newest recorded step; -1 before the first."""
        try:
            lines = (self.folder / "metrics.jsonl").read_text().splitlines()
            return int(re.match(r'{"step":(\d+)', lines[-1])[1]) if lines else -1
        except (OSError, TypeError):
            return -1

    def alive(self):
        return self.process.poll() is None

    def recovery(self):
        """Seconds from the kill to the second step that was not there at the kill: the first may have been under way."""
        wait_for("the kill", lambda: self.kill_file.exists() or not self.alive(), 120)
        if not self.kill_file.exists():
            return None
        killed, had = self.kill_file.stat().st_mtime, self.step()
        wait_for("new steps", lambda: self.step() > had + 1 or not self.alive(), 120)
        return time.time() - killed

    def finish(self):
        try:
            code = self.process.wait(timeout=300)
        except subprocess.TimeoutExpired:
            self.stop()
            raise
        if code != 0:
            raise AssertionError(f"atod up: exit {code}\n{self.logs()}")
        return int(re.search(r"(\d+) restarts$", self.log.read_text().strip())[1])

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def logs(self):
        out = self.log.read_text()[-2000:]
        for path in sorted((self.folder / "logs").glob("*.log")):
            out += f"--- {path.name}\n{path.read_text()[-2500:]}"
        return out

    def left(self):
        """What must not depend on kills."""
        last = self.folder / "checkpoints/last"
        with sqlite3.connect(f"file:{self.folder}/ledger.db?mode=ro", uri=True) as db:
            digests = db.execute("SELECT step, upd, count, digest FROM updates ORDER BY step, upd").fetchall()
        return {"metrics.jsonl": (self.folder / "metrics.jsonl").read_bytes(),
                "digests of the ledger": digests,
                "log-probs and advantages": [p.read_bytes() for p in sorted((self.folder / "spool").glob("train-*.advantages.jsonl"))],
                "evaluations": [p.read_bytes() for p in sorted((self.folder / "evals").glob("*.jsonl"))],
                "final weights": (last / "model/model.safetensors").read_bytes(),
                "optimiser": (last / "optimizer.safetensors").read_bytes()}

    def counts(self):
        """Rows of each table, all purposes, and ids that were consumed more than once."""
        with sqlite3.connect(f"file:{self.folder}/ledger.db?mode=ro", uri=True) as db:
            n = {t: db.execute(f"SELECT count(*) FROM {t}").fetchone()[0]
                 for t in ("issued", "consumed", "dropped", "superseded", "in_flight")}
            twice = db.execute("SELECT count(*) FROM (SELECT 1 FROM consumed GROUP BY purpose, step, grp, sample HAVING count(*) > 1)")
            return n, twice.fetchone()[0]


def differences(run, unbroken):
    out = []
    for what, bytes_ in run.left().items():
        if bytes_ == unbroken[what]:
            continue
        out.append(what)
        if what == "metrics.jsonl":
            for a, b in zip(bytes_.decode().splitlines(), unbroken[what].decode().splitlines()):
                if a != b:
                    print(f"  found    {a}\n  expected {b}")
                    break
    return out


def verify(run, unbroken, what):
    """Everything that a run must be after it ended."""
    differ = differences(run, unbroken)
    n, twice = run.counts()
    ledger = subprocess.run([run.work / "bin/atod", "check-ledger", run.folder], capture_output=True, text=True)
    problems = [f"differ: {', '.join(differ)}"] if differ else []
    if n["issued"] != n["consumed"] + n["dropped"] + n["superseded"] + n["in_flight"]:
        problems.append(f"counts do not add up: {n}")
    if twice:
        problems.append(f"{twice} ids consumed twice")
    if ledger.returncode != 0:
        problems.append(ledger.stdout + ledger.stderr)
    check(not problems, what + "".join(f"\n  {p}" for p in problems))
    return n


def kill_points(work, unbroken, points):
    rows = []
    for label in points:
        run = Run(work, label, f"{label}:{POINTS[label]}")
        try:
            seconds = run.recovery()
            restarts = run.finish()
        except BaseException:
            run.stop()
            print(run.logs())
            raise
        check(seconds is not None and restarts == 1, f"killed at {label}, pass {POINTS[label]}")
        verify(run, unbroken, f"{label}: as the unbroken run, {seconds:.1f} s until two new steps")
        rows.append(f"| `{label}` | {POINTS[label]} | {seconds:.1f} |")
    return ["| point | killed at its pass number | seconds from the kill to the second new step |", "|---|---:|---:|", *rows]


def kill(run, program, index=0):
    """SIGKILLs a program that `atod up` runs; false when there is none right now."""
    pids = children(run.process.pid).get(program, [])
    if index >= len(pids):
        return False
    os.kill(pids[index], signal.SIGKILL)
    return True


def kill_services(work, unbroken):
    """Each service once, one after the other, in one run."""
    run = Run(work, "services")
    try:
        for step, program in ((1, "atod-rollout"), (2, "atod-teacher"), (4, "atod-envs"), (5, "atod-learner")):
            wait_for(f"step {step}", lambda: run.step() >= step or not run.alive(), 120)
            check(run.alive() and kill(run, program), f"{program} killed after step {run.step()}")
        restarts = run.finish()
    except BaseException:
        run.stop()
        print(run.logs())
        raise
    check(restarts == 4, "four restarts")
    verify(run, unbroken, "as the unbroken run")


def kill_at_random(work, unbroken, seconds, number):
    rng = random.Random(number)
    programs = ["atod-learner", "atod-rollout", "atod-teacher", "atod-envs"]
    plan = sorted((rng.uniform(0.3, 1.1 * seconds), rng.choice(programs), rng.randrange(2)) for _ in range(rng.randint(2, 5)))
    run = Run(work, f"random-{number}")
    done = []
    try:
        for at, program, index in plan:
            wait_for("the next kill", lambda: time.time() - run.begin >= at or not run.alive(), 300)
            if run.alive() and kill(run, program, index if program == "atod-rollout" else 0):
                done.append(f"{program[5:]} {at:.1f}")
        restarts = run.finish()
    except BaseException:
        run.stop()
        print(run.logs())
        raise
    n = verify(run, unbroken, f"random {number}: {', '.join(done)}: as the unbroken run")
    shutil.rmtree(run.folder)
    return f"| {number} | {', '.join(done)} | {restarts} | {n['issued']} | {n['consumed']} | {n['dropped']} | {n['superseded']} | {n['in_flight']} | 0 | yes |"


def write_section(title, command, lines):
    """Puts one section into the page of results and keeps the others."""
    page = RESULTS.read_text() if RESULTS.exists() else ""
    sections = dict(part.split("\n", 1) for part in page.split("\n## ")[1:])
    sections[title] = f"\n    {command}\n\n" + "\n".join(lines)
    RESULTS.write_text(PAGE + "".join(f"\n## {t}\n{body.rstrip()}\n" for t, body in sorted(sections.items())))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    parser.add_argument("--points")
    parser.add_argument("--services", action="store_true")
    parser.add_argument("--random", type=int, metavar="N")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    points = args.points.split(",") if args.points else list(POINTS)
    if unknown := [p for p in points if p not in POINTS]:
        parser.error(f"--points: found {', '.join(unknown)}, expected some of {', '.join(POINTS)}")
    check_products(args.build)
    work = pathlib.Path(tempfile.mkdtemp(prefix="atod-chaos."))
    try:
        copy_programs(args.build, work / "bin")
        make_inputs(work / "bin", work, train=60, valid=8, demos=200, vocab=500, teacher_updates=60, student_updates=40)
        print("ok: games, tokenizer and models made", flush=True)
        reference = Run(work, "unbroken")
        restarts = reference.finish()
        seconds = time.time() - reference.begin
        unbroken = reference.left()
        rl = [s.get("hybrid/rl_signal_abs_mean", 0) for s in steps_of(reference.folder)]
        check(max(rl) > 0, "both signals train")
        check(restarts == 0 and len(steps_of(reference.folder)) == STEPS + 1, f"an unbroken run, {seconds:.1f} s")
        cores = f"On {os.cpu_count()} cores, load average {os.getloadavg()[0]:.0f}; the unbroken run took {seconds:.1f} s."
        if args.services:
            kill_services(work, unbroken)
        elif args.random:
            rows = [kill_at_random(work, unbroken, seconds, i + 1) for i in range(args.random)]
            lines = [cores, "", "| run | killed (service, seconds after the start) | restarts | issued | consumed | dropped | superseded | in flight "
                     "| consumed twice | same bytes |", "|---:|---|---:|---:|---:|---:|---:|---:|---:|---|", *rows]
            print("\n".join(lines))
            if args.write:
                write_section("At random times", f"tests/chaos/run.sh --random {args.random} --write", lines)
        else:
            lines = [cores, "", *kill_points(work, unbroken, points)]
            print("\n".join(lines))
            if args.write:
                write_section("At every labelled point", "tests/chaos/run.sh --write", lines)
    finally:
        shutil.rmtree(work)


main()

#!/usr/bin/env python3
"""The whole loop with real processes, a real Prometheus, and kills.

  tests/e2e/whole_loop_test.py BIN_DIR

Makes games, models and a short run in a temporary folder; kills a rollout
worker, the teacher and the environment server in the middle of it with
SIGKILL; then checks what a user would: the run ended, the ledger holds, no
step is missing or doubled, kl_coef fell and rl_coef rose as Eq. 11 and 12 say
(asked of Prometheus by PromQL), and every dashboard expression has data.
"""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))
from loop import check, children, free_ports, make_inputs, run_atod, steps_of, wait_for  # noqa: E402

BIN = pathlib.Path(sys.argv[1]).resolve()
STEPS, ANNEAL = 24, 20


class Prometheus:
    def __init__(self, work, targets, run_ports):
        self.port = run_ports
        jobs = "".join(f"""
  - job_name: {job}
    static_configs: [{{targets: ['127.0.0.1:{port}']}}]""" for job, port in targets.items())
        (work / "prometheus.yml").write_text(f"global: {{scrape_interval: 500ms, scrape_timeout: 400ms}}\nscrape_configs:{jobs}\n")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={work}/prometheus.yml", f"--storage.tsdb.path={work}/tsdb",
             f"--web.listen-address=127.0.0.1:{self.port}"],
            stdout=open(work / "prometheus.log", "w"), stderr=subprocess.STDOUT)

    def query(self, path, **args):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(args)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as reply:
                return json.load(reply)["data"]["result"]
        except OSError:
            return []  # not up yet: the checks see that nothing came


def dashboard_expressions():
    for path in sorted((ROOT / "deploy/grafana/dashboards").glob("*.json")):
        def walk(panels):
            for panel in panels:
                for target in panel.get("targets", []):
                    yield panel["title"], target["expr"]
                yield from walk(panel.get("panels", []))
        yield from walk(json.loads(path.read_text())["panels"])


def main():
    if not shutil.which("prometheus"):
        print("SKIPPED: prometheus: not installed, expected Debian's package (deploy/setup.sh --tests)")
        sys.exit(77)
    work = pathlib.Path(tempfile.mkdtemp(prefix="atod-e2e."))
    make_inputs(BIN, work, train=200, valid=12, demos=600, vocab=600, teacher_updates=300, student_updates=220)
    print("ok: games, tokenizer and models made", flush=True)
    learner, teacher, envs, m_learner, m_teacher, m_envs, m_rollout, prom = free_ports(8)
    sets = {
        "name": "e2e", "runs_dir": work / "runs", "steps": STEPS, "seed": 3,
        "model.path": work / "student", "teachers.0.path": work / "teacher", "env.data": work / "games",
        "rpc.learner": f"127.0.0.1:{learner}", "rpc.teacher": f"127.0.0.1:{teacher}", "rpc.envs": f"127.0.0.1:{envs}",
        "metrics.learner_port": m_learner, "metrics.teacher_port": m_teacher, "metrics.envs_port": m_envs,
        "metrics.rollout_port": m_rollout, "algorithm.coef_anneal_steps": ANNEAL, "algorithm.tasks_per_step": 8,
        "algorithm.group_size": 8, "eval.panel_size": 12, "eval.every": 4, "checkpoint.every": 5, "optimizer.updates_per_step": 2,
        "optimizer.decay_step": 8, "threads.learner": 1,
    }
    args = [str(BIN / "atod"), "up", "--config", str(ROOT / "deploy/configs/embedded.yaml")]
    for key, value in sets.items():
        args += ["--set", f"{key}={value}"]
    log = open(work / "up.log", "w")
    run = work / "runs/e2e"
    up = None
    prometheus = Prometheus(work, {"learner": m_learner, "teacher": m_teacher, "envs": m_envs, "rollout": m_rollout}, prom)
    try:
        # Prometheus begins to scrape some seconds after its start.
        wait_for("first scrapes", lambda: len(prometheus.query("query", query="up")) == 4, 30)
        up = subprocess.Popen(args, stdout=log, stderr=subprocess.STDOUT)
        for step, program in ((4, "atod-rollout"), (8, "atod-teacher"), (12, "atod-envs")):
            wait_for(f"step {step}", lambda: up.poll() is not None or any(s["step"] >= step for s in steps_of(run)), 180)
            check(up.poll() is None, f"the run goes on at step {step}")
            before = children(up.pid)[program]
            os.kill(before[0], signal.SIGKILL)
            wait_for(f"new {program}", lambda: children(up.pid).get(program, before) != before, 30)
            print(f"ok: {program} killed at step {step} and started again", flush=True)
        status = run_atod(BIN, "status", "--learner", f"127.0.0.1:{learner}")
        check("e2e" in status, "atod status answers while the run goes on")
        wait_for("the last scrapes", lambda: up.poll() is not None or steps_of(run)[-1]["step"] >= STEPS - 1, 180)
        empty = []
        for title, expr in dashboard_expressions():
            result = prometheus.query("query", query=expr)
            if not result:
                empty.append(f"{title}: {expr}")
        code = up.wait(timeout=180)
        check(code == 0, "atod up ended with status 0")
        check(not empty, "every dashboard expression returns data" + "".join("\n  none: " + e for e in empty))

        steps = [s["step"] for s in steps_of(run) if "hybrid/kl_coef" in s]
        check(steps == list(range(1, STEPS + 1)), "metrics.jsonl has each step once")
        ledger = run_atod(BIN, "check-ledger", run)
        n = STEPS * 64
        check(re.search(rf"issued {n} = consumed {n} \+ dropped 0 \+ in flight 0", ledger), f"the ledger holds: {ledger.splitlines()[0]}")
        check(len(run_atod(BIN, "trajectories", "list", run).splitlines()) >= n, "atod trajectories lists them")

        end, start = time.time(), time.time() - 900
        for name, first, last, sign in (("kl", 1.0, 0.1, -1), ("rl", 1.0, 2.0, 1)):
            series = prometheus.query("query_range", query=f"atod_hybrid_{name}_coef", start=start, end=end, step=0.5)
            values = [float(v) for s in series for _, v in s["values"]]
            distinct = list(dict.fromkeys(values))
            expected = [first + (last - first) * min(s / ANNEAL, 1) for s in range(1, STEPS + 1)]
            check(len(distinct) >= 3 and all(sign * (b - a) > 0 for a, b in zip(distinct, distinct[1:])),
                  f"PromQL: {name}_coef only {'rises' if sign > 0 else 'falls'}: {distinct}")
            check(all(any(abs(v - e) < 1e-9 for e in expected) for v in distinct), f"PromQL: {name}_coef takes the values of the equation")
    except Exception:
        print((work / "up.log").read_text()[-3000:])
        for path in sorted((run / "logs").glob("*.log")):
            print(f"--- {path.name}\n{path.read_text()[-1500:]}")
        raise
    finally:
        for process in [up, prometheus.process]:
            if process is None:
                continue
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()  # the services die with atod up
                process.wait()
        shutil.rmtree(work)


main()

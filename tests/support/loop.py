"""What tests of the whole loop share: inputs, ports, processes."""
import collections
import json
import os
import pathlib
import socket
import subprocess
import time

MODEL = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64,
    "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": True,
}


def check(condition, message):
    if not condition:
        raise AssertionError(message)
    print(f"ok: {message}", flush=True)


def run_atod(bin_dir, *args):
    done = subprocess.run([bin_dir / "atod", *map(str, args)], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"atod {' '.join(map(str, args))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def free_ports(n):
    sockets = [socket.socket() for _ in range(n)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def children(pid):
    """Programs that `atod up` runs: name -> pids."""
    out = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid=,args="], capture_output=True, text=True).stdout
    found = collections.defaultdict(list)
    for line in out.splitlines():
        child, args = line.split(None, 1)
        found[os.path.basename(args.split()[0])].append(int(child))
    return found


def steps_of(run):
    path = pathlib.Path(run) / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(what, condition, seconds, pause=0.02):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(pause)
    raise AssertionError(f"timed out after {seconds} s: {what}")


def make_inputs(bin_dir, work, train, valid, demos, vocab, teacher_updates, student_updates):
    """Games, demonstrations, tokenizer, teacher and student in `work`."""
    def atod(*args):
        return run_atod(bin_dir, *args)
    atod("games", "--out", work / "games", "--seed", 5, "--train", train, "--valid-seen", valid, "--valid-unseen", valid)
    atod("games", "demos", "--games", work / "games", "--split", "train", "--count", demos, "--seed", 1, "--forget", 0.4,
         "--noise", 0.12, "--out", work / "demos.jsonl")
    atod("train-tokenizer", "--data", work / "demos.jsonl", "--vocab-size", vocab, "--out", work / "tokenizer")
    (work / "model.json").write_text(json.dumps(MODEL))
    for name, seed, updates in (("teacher", 1, teacher_updates), ("student", 2, student_updates)):
        atod("init-model", "--config", work / "model.json", "--tokenizer", work / "tokenizer", "--init", "unit", "--seed", seed,
             "--out", work / f"{name}-init")
        atod("sft", "--model", work / f"{name}-init", "--data", work / "demos.jsonl", "--out", work / name, "--updates", updates,
             "--batch-rows", 16, "--lr", 3e-3, "--warmup", 5, "--seed", seed)

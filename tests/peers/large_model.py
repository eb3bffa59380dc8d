#!/usr/bin/env python3
"""What it costs to open a large model: a checkpoint in the shape of Qwen3-4B
(random bfloat16, four shards, 8 GB), read by the programs as a user's would be.

    usage: tests/peers/large_model.py ATOD FOLDER [PAGE]

Makes the checkpoint in FOLDER if it is not there (needs 16 GB of disk). Prints
time and peak memory of each command, writes them to PAGE, and exits 1 when a
command fails.
"""
import array
import json
import os
import random
import shutil
import subprocess
import sys
import time

HIDDEN, FFN, LAYERS, HEADS, KV_HEADS, DIM, VOCAB = (
    2560, 9728, 36, 32, 8, 128, 151936)
SHARDS = 4
BLOCK = 1 << 20  # random values that are repeated
PAGE = """# Opening a large model

Made by `tests/peers/large_model.py ATOD FOLDER docs/results/large-model.md`: a
checkpoint in the shape of Qwen3-4B, bfloat16, {size:.2f} GB in four shards, on
a machine with {cores} cores. Memory is the process's peak without what the
system caches of files; CPU time of the system is mostly for giving memory out.

| command | seconds | CPU, user | CPU, system | peak GB |
|---|---|---|---|---|
{rows}

The weights are copied tensor by tensor from the mapped files, which are given
back at once. On the CPU, bfloat16 weights that are not trained are then laid
out for the products a second time.
"""


def tensors():
    """(name, shape) of all parameters."""
    yield "model.embed_tokens.weight", (VOCAB, HIDDEN)
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (HIDDEN,)
        yield prefix + "post_attention_layernorm.weight", (HIDDEN,)
        yield prefix + "self_attn.q_norm.weight", (DIM,)
        yield prefix + "self_attn.k_norm.weight", (DIM,)
        yield prefix + "self_attn.q_proj.weight", (HEADS * DIM, HIDDEN)
        yield prefix + "self_attn.k_proj.weight", (KV_HEADS * DIM, HIDDEN)
        yield prefix + "self_attn.v_proj.weight", (KV_HEADS * DIM, HIDDEN)
        yield prefix + "self_attn.o_proj.weight", (HIDDEN, HEADS * DIM)
        yield prefix + "mlp.gate_proj.weight", (FFN, HIDDEN)
        yield prefix + "mlp.up_proj.weight", (FFN, HIDDEN)
        yield prefix + "mlp.down_proj.weight", (HIDDEN, FFN)
    yield "model.norm.weight", (HIDDEN,)


def count(shape):
    n = 1
    for d in shape:
        n *= d
    return n


def write_shard(path, entries, block):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in entries:
        size = 2 * count(shape)
        header[name] = {"dtype": "BF16", "shape": shape,
                        "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, shape in entries:
            n = 2 * count(shape)
            if len(shape) == 1:  # a norm: ones
                file.write(b"\x80\x3f" * (n // 2))
                continue
            for begin in range(0, n, len(block)):
                file.write(block[:min(len(block), n - begin)])


def make(folder):
    os.makedirs(folder, exist_ok=True)
    source = random.Random(1)
    # Of either sign, 0.008 to 0.06.
    block = array.array("H", (
        source.getrandbits(1) << 15 | 0x3C00 + source.randrange(0x180)
        for _ in range(BLOCK))).tobytes()
    entries = list(tensors())
    total = sum(2 * count(shape) for _, shape in entries)
    shards, size = [[]], 0
    for entry in entries:
        if size > total * len(shards) / SHARDS:
            shards.append([])
        shards[-1].append(entry)
        size += 2 * count(entry[1])
    weight_map = {}
    for i, shard in enumerate(shards):
        name = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        write_shard(os.path.join(folder, name), shard, block)
        weight_map.update({tensor: name for tensor, _ in shard})
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {"total_size": total},
                   "weight_map": weight_map}, f)
    with open(os.path.join(folder, "config.json"), "w") as f:  # the last
        json.dump({
            "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3",
            "hidden_size": HIDDEN, "intermediate_size": FFN,
            "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS, "head_dim": DIM,
            "vocab_size": VOCAB, "tie_word_embeddings": True,
            "rms_norm_eps": 1e-6, "rope_theta": 1e6, "hidden_act": "silu",
            "max_position_embeddings": 40960, "torch_dtype": "bfloat16"}, f)


def run(name, *command):
    """The row of a table."""
    start = time.time()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)}: failed")
    row = (f"| {name} | {time.time() - start:.1f} | {usage.ru_utime:.1f} | "
           f"{usage.ru_stime:.1f} | {usage.ru_maxrss * 1024 / 1e9:.2f} |")
    print(row, flush=True)
    return row


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    atod, folder = sys.argv[1:3]
    if not os.path.exists(os.path.join(folder, "config.json")):
        make(folder)
    size = sum(2 * count(shape) for _, shape in tensors())
    lines = os.path.join(folder, "lines.jsonl")
    with open(lines, "w") as f:
        f.write('{"token_ids": [1, 2, 3, 4], "spans": [[1, 3]]}\n')
    out = os.path.join(folder, "out")
    rows = [
        run("verify-model", atod, "verify-model", folder),
        run("score four tokens in bfloat16", atod, "score", "--model", folder,
            "--input", lines, "--dtype", "bf16"),
        run("export in bfloat16", atod, "export", "--model", folder, "--out",
            out)]
    shutil.rmtree(out)
    if len(sys.argv) == 4:
        with open(sys.argv[3], "w") as f:
            f.write(PAGE.format(size=size / 1e9, cores=os.cpu_count(),
                                rows="\n".join(rows)))


if __name__ == "__main__":
    main()

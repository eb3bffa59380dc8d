"""Times the model against transformers, and against llama.cpp where its Python
package is there, on a random Qwen3-0.6B of transformers' making.

usage: model_speed.py ATOD_PROGRAM MODEL_DIR [--rounds N] [--only NAME,…]
                      [--gguf FILE] [--markdown FILE]

Both sides load the model and compute the same tokens with the same threads, in
turns; a figure is the least of its rounds. Ours are whole processes, theirs
begin behind Python's imports; what is said to be decoding alone is without the
loading on both sides. Prints one line a measurement: seconds of both, how many
times faster ours is; --markdown writes them as a page."""

import argparse
import json
import pathlib
import random
import re
import shutil
import subprocess
import tempfile
import time

import torch
import transformers

THREADS = 2
PAGE = """# A 0.6B against transformers and llama.cpp, on the CPU

    tests/peers/model_speed.py build/release/bin/atod MODEL --gguf GGUF --markdown docs/results/model-speed.md

Random Qwen3-0.6B, {threads} threads, {cpu}; torch {torch}, transformers
{transformers}. Both sides in turns in one run, the least of the rounds, in
seconds; both load the model unless the line speaks of decoding alone.

| work | ours | theirs | times faster | results |
|---|---|---|---|---|
{table}

Rows of the vocabulary that no token of the tokenizer names are no part of our
model: log-probs of a random one, all of whose words are about as likely, are
above transformers' by the logarithm of the two sizes' ratio.
"""


def cpu():
    text = pathlib.Path("/proc/cpuinfo").read_text()
    name = text.split("model name", 1)[1].split(":", 1)[1].split("\n")[0]
    flags = [f for f in ("avx512f", "avx512_bf16", "amx_bf16") if f" {f} " in text]
    return f"{name.strip()} with {', '.join(flags) or 'no AVX-512'}"


def make(directory, layers=28):
    """A random Qwen3-0.6B (or its first `layers` layers) in bfloat16."""
    torch.manual_seed(1)
    config = transformers.Qwen3Config(
        vocab_size=151936, hidden_size=1024, intermediate_size=3072,
        num_hidden_layers=layers, num_attention_heads=16,
        num_key_value_heads=8, head_dim=128, max_position_embeddings=40960,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=None,
        pad_token_id=None)
    transformers.Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(
        directory)


def tokens(n, seed):
    rng = random.Random(seed)
    return [rng.randrange(151643) for _ in range(n)]


def peer(directory, dtype):
    return transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype).eval()


class Timer:
    """Least seconds of a call over the rounds, and its last result."""

    def __init__(self, call):
        self.call, self.seconds, self.result = call, float("inf"), None

    def run(self):
        begin = time.perf_counter()
        self.result = self.call()
        self.seconds = min(self.seconds, time.perf_counter() - begin)


def atod_lines(command, rows, work):
    path = pathlib.Path(work) / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = subprocess.run([*command, "--input", str(path)],
                          capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def peer_generate(model, prompts, new):
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p)
                         for p in prompts])
    with torch.no_grad():
        out = model.generate(ids, attention_mask=mask, do_sample=False,
                             max_new_tokens=new, pad_token_id=0)
    return out[:, longest:].tolist()


def peer_score(model, sequences, kept):
    """Log-probs of the last `kept` tokens of each."""
    ids = torch.tensor(sequences)
    with torch.no_grad():
        logits = model(ids, logits_to_keep=kept + 1).logits[:, :-1].float()
    return logits.log_softmax(-1).gather(
        2, ids[:, -kept:].unsqueeze(2))[..., 0]


def measurements(atod, directory, work):
    """name -> (what, ours, theirs), made when they are asked for."""
    mixed = [tokens(n, n) for n in range(64, 321, 17)]
    shared = tokens(512, 7)
    scored = [shared + tokens(100, 100 + i) for i in range(8)]
    score_rows = [{"token_ids": s, "spans": [[512, 100]]} for s in scored]

    def generate(prompts, new, *flags):
        return lambda: [r["token_ids"] for r in atod_lines(
            [atod, "generate", "--model", directory, "--temperature", "0",
             "--max-tokens", str(new), *flags],
            [{"id": str(i), "token_ids": p} for i, p in enumerate(prompts)],
            work)]

    def score(*flags):
        return lambda: torch.tensor([r["logprobs"][0] for r in atod_lines(
            [atod, "score", "--model", directory, *flags], score_rows, work)])

    def decode_one():
        out = subprocess.run(
            [atod, "bench", "decode", "--model", directory, "--batch", "1",
             "--prompt", "16", "--new", "64", "--dtype", "bf16"],
            capture_output=True, text=True, check=True).stdout
        return json.loads(out)["tokens_per_second"]

    bf16, fp32 = torch.bfloat16, torch.float32
    return {
        "mixed": ("16 prompts of 64 to 319 tokens, 33 new ones each, bfloat16",
                  generate(mixed, 33, "--dtype", "bf16"),
                  lambda m: peer_generate(m, mixed, 33), bf16),
        "one": ("B = 1, 64 new tokens behind 16, bfloat16, decoding alone",
                decode_one,
                lambda m: peer_generate(m, [tokens(16, 3)], 64), bf16),
        "score": ("score 8 x (512 shared + 100), bfloat16",
                  score("--dtype", "bf16"),
                  lambda m: peer_score(m, scored, 100), bf16),
        "score-exact": ("the same in float32, back end cpu-exact",
                        score("--dtype", "fp32"),
                        lambda m: peer_score(m, scored, 100), fp32),
        "score-torch": ("the same in float32, back end torch",
                        score("--dtype", "fp32", "--deterministic", "false"),
                        lambda m: peer_score(m, scored, 100), fp32),
    }


def compare_results(name, ours, theirs):
    if name.startswith("score"):
        gap = (ours - theirs).abs()
        return f"log-probs differ by {gap.mean():.1e} on average, {gap.max():.1e} at most"
    if name == "mixed":
        same = sum(a == b for row, other in zip(ours, theirs)
                   for a, b in zip(row, other))
        return f"{same} of {sum(map(len, theirs))} greedy tokens equal"
    return ""


def measure(name, row, directory, rounds):
    what, ours, theirs, dtype = row
    a, b = Timer(ours), Timer(lambda: theirs(peer(directory, dtype)))
    if name == "one":
        model = peer(directory, dtype)
        b = Timer(lambda: theirs(model))
    for _ in range(rounds):
        a.run()
        b.run()
    if name == "one":  # the process also loads: its own clock counts
        a.seconds = 64 / a.result
    return {"name": name, "what": what, "ours_s": a.seconds,
            "theirs_s": b.seconds, "ratio": b.seconds / a.seconds,
            "results": compare_results(name, a.result, b.result)}


def training_rows(tokenizer):
    """16 texts whose prompts and responses have 4,096 tokens together, and
    those tokens: (prompt, response, ids, tokens of the prompt)."""
    rng, words = random.Random(5), ["take", "apple", "shelf", "open", "drawer",
                                    "the", "look", "move", "fridge", "cool"]
    end = tokenizer.token_to_id("<|im_end|>")
    rows = []
    for i in range(16):
        length = 64 + 384 * i // 15
        prompt = " ".join(rng.choice(words) for _ in range(length - 33))
        response = "".join(" " + rng.choice(words) for _ in range(32))
        first = tokenizer.encode(prompt).ids
        rows.append((prompt, response,
                     first + tokenizer.encode(response).ids + [end], len(first)))
    return rows


def measure_train(atod, directory, work, rounds):
    """One update of supervised fine-tuning, AdamW included."""
    import tokenizers
    small = pathlib.Path(work) / "four-layers"
    make(small, layers=4)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(pathlib.Path(directory) / name, small / name)
    rows = training_rows(tokenizers.Tokenizer.from_file(
        str(small / "tokenizer.json")))
    data = pathlib.Path(work) / "train.jsonl"
    data.write_text("".join(json.dumps({"prompt": p, "response": r}) + "\n"
                            for p, r, *_ in rows))
    total = sum(len(ids) for _, _, ids, _ in rows)
    updates = rounds + 1

    def ours():
        out = subprocess.run(
            [atod, "sft", "--model", str(small), "--data", str(data), "--out",
             str(small) + "-out", "--dtype", "bf16", "--deterministic", "false",
             "--updates", str(updates), "--batch-rows", "16", "--lr", "1e-6",
             "--warmup", "0", "--threads", str(THREADS)], capture_output=True, text=True, check=True).stdout
        found = [(float(loss), float(rate)) for loss, rate in re.findall(
            r"loss ([\d.]+) .* (\d+) tokens/s", out)]
        return found[0][0], total / max(rate for _, rate in found)

    def theirs():
        model = peer(str(small), torch.bfloat16).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
        longest = max(len(ids) for _, _, ids, _ in rows)
        ids = torch.zeros(16, longest, dtype=torch.long)
        mask, labels = ids.clone(), torch.full_like(ids, -100)
        for i, (_, _, row, begin) in enumerate(rows):
            ids[i, :len(row)] = torch.tensor(row)
            mask[i, :len(row)] = 1
            labels[i, begin:len(row)] = torch.tensor(row[begin:])
        first, least = None, float("inf")
        for _ in range(rounds):
            begin = time.perf_counter()
            loss = model(ids, attention_mask=mask, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            least = min(least, time.perf_counter() - begin)
            first = first if first is not None else loss.item()
        return first, least

    (loss, a), (peer_loss, b) = ours(), theirs()
    return {"name": "train", "what": f"an update of 16 rows of 64 to 448 tokens, {total} "
            "together, packed against padded, 4 layers, bfloat16",
            "ours_s": a, "theirs_s": b, "ratio": b / a,
            "results": f"losses {loss:.4f} and {peer_loss:.4f}"}


def measure_llama(atod, directory, gguf, rounds):
    """Decode rates at B = 1: tokens a second after the prompt."""
    import llama_cpp
    llama = llama_cpp.Llama(gguf, n_ctx=512, n_threads=THREADS,
                            n_threads_batch=THREADS, verbose=False)
    best = {"ours": 0.0, "theirs": 0.0}
    for _ in range(rounds):
        out = subprocess.run(
            [atod, "bench", "decode", "--model", directory, "--batch", "1",
             "--prompt", "16", "--new", "64", "--dtype", "bf16"],
            capture_output=True, text=True, check=True).stdout
        best["ours"] = max(best["ours"], json.loads(out)["tokens_per_second"])
        llama.reset()
        llama.eval(tokens(16, 3))
        begin = time.perf_counter()
        for _ in range(64):
            llama.eval([llama.sample(temp=0)])
        best["theirs"] = max(best["theirs"],
                             64 / (time.perf_counter() - begin))
    return {"name": "llama", "what": "B = 1, bfloat16, seconds a token, decoding alone, "
            f"llama.cpp ({llama_cpp.__version__})",
            "ours_s": 1 / best["ours"], "theirs_s": 1 / best["theirs"],
            "ratio": best["ours"] / best["theirs"], "results": ""}


def main():
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("atod")
    flags.add_argument("model", help="made when it is not there")
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--only", default="")
    flags.add_argument("--gguf", help="the same model as bf16 GGUF")
    flags.add_argument("--markdown", type=pathlib.Path)
    args = flags.parse_args()
    torch.set_num_threads(THREADS)
    transformers.utils.logging.disable_progress_bar()
    if not pathlib.Path(args.model, "config.json").exists():
        make(args.model)
    print(f"torch {torch.__version__}, transformers "
          f"{transformers.__version__}, {THREADS} threads", flush=True)
    out = []
    with tempfile.TemporaryDirectory() as work:
        rows = measurements(args.atod, args.model, work)
        for name in args.only.split(",") if args.only else [
                *rows, "train", *(["llama"] if args.gguf else [])]:
            if name == "llama":
                out.append(measure_llama(args.atod, args.model, args.gguf,
                                         args.rounds))
            elif name == "train":
                out.append(measure_train(args.atod, args.model, work,
                                         args.rounds))
            else:
                out.append(measure(name, rows[name], args.model, args.rounds))
            row = out[-1]
            print(f"{row['what']}: {row['ours_s']:.2f} s against "
                  f"{row['theirs_s']:.2f} s: {row['ratio']:.2f}x"
                  + (f" ({row['results']})" if row["results"] else ""),
                  flush=True)
    if args.markdown:
        lines = [f"| {r['what']} | {r['ours_s']:.3g} | {r['theirs_s']:.3g} | "
                 f"{r['ratio']:.2f} | {r['results']} |" for r in out]
        args.markdown.write_text(PAGE.format(
            torch=torch.__version__, transformers=transformers.__version__,
            threads=THREADS, cpu=cpu(), table="\n".join(lines)))


if __name__ == "__main__":
    main()

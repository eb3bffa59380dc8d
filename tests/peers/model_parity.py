"""Compares the model with Hugging Face transformers.

usage: model_parity.py ATOD_PROGRAM WORK_DIR [--golden DIR]

For random Qwen3 checkpoints written by transformers (dense and mixture of
experts, tied and untied heads, several shapes, grouped queries): `atod score`
against log_softmax of the peer's logits in float32, `atod generate` greedy
against generate(), and `atod export` read back by transformers. In bfloat16 the
log-probs must lie as near the float32 ones as the peer's own do, which differ
between batch sizes. Prints one line a check and a verdict; exit status 1 if a
check failed. With --golden writes the small checkpoint that
common/model/checkpoint_test.cc reads.
"""

import json
import pathlib
import subprocess
import sys

import torch
import transformers

SHAPES = {
    # name: hidden, ffn, layers, heads, kv heads, head_dim, vocabulary, tied
    "tiny-tied": (64, 192, 3, 4, 2, 32, 540, True),
    "tiny-untied": (64, 192, 2, 4, 4, 16, 1000, False),
    "gqa-wide": (128, 320, 2, 8, 1, 64, 5000, True),
    "odd-sizes": (72, 100, 2, 6, 3, 20, 333, False),
    "deep": (96, 256, 6, 6, 2, 128, 2000, True),
}
# Qwen3-30B-A3B scaled down, its experts' width in place of ffn; the second one
# routes so that some experts never get a token.
EXPERTS = {
    "moe-untied": (128, 48, 3, 8, 2, 32, 2000, False),
    "moe-idle-experts": (64, 32, 2, 4, 2, 32, 700, True),
}
NUM_EXPERTS, EXPERTS_PER_TOKEN = 128, 8
TOLERANCE = 1e-4


def make(name, directory, seed=0):
    moe = name in EXPERTS
    hidden, ffn, layers, heads, kv, dim, vocab, tied = (
        EXPERTS if moe else SHAPES)[name]
    torch.manual_seed(seed)
    shape = dict(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        head_dim=dim,
        max_position_embeddings=2048,
        tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    if moe:
        model = transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(
            **shape, moe_intermediate_size=ffn, num_experts=NUM_EXPERTS,
            num_experts_per_tok=EXPERTS_PER_TOKEN, norm_topk_prob=True,
            decoder_sparse_step=1, mlp_only_layers=[]))
    else:
        model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**shape))
    model = model.float().eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            else:
                # Larger than the default, so that answers are not all alike.
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
            if name == "moe-idle-experts" and key.endswith("mlp.gate.weight"):
                # Rows near zero give logits near zero, which are never among
                # the best eight.
                parameter[NUM_EXPERTS // 2:] *= 1e-3
    model.save_pretrained(directory)
    return model


def peer_bf16_spread(model, sequences):
    """Largest distance of the peer's bfloat16 log-probs from its float32 ones,
    alone and in a padded batch."""
    low = type(model)(model.config).to(torch.bfloat16).eval()
    low.load_state_dict(model.state_dict())
    longest = max(map(len, sequences))
    padded = torch.tensor([s + [0] * (longest - len(s)) for s in sequences])
    mask = torch.tensor([[1] * len(s) + [0] * (longest - len(s))
                         for s in sequences])
    with torch.no_grad():
        batch = low(padded, attention_mask=mask).logits.float().log_softmax(-1)
    worst = 0.0
    for i, s in enumerate(sequences):
        exact = torch.tensor(peer_logprobs(model, s, 1.0))
        alone = torch.tensor(peer_logprobs(low, s, 1.0))
        packed = batch[i, :len(s) - 1].gather(
            1, torch.tensor(s[1:]).unsqueeze(1))[:, 0]
        worst = max(worst, (alone - exact).abs().max().item(),
                    (packed - exact).abs().max().item())
    return worst


def prompts(vocab, lengths, seed):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randint(vocab, (n,), generator=generator).tolist()
        for n in lengths
    ]


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def peer_logprobs(model, tokens, temperature):
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].float() / temperature
    all_logprobs = logits.log_softmax(-1)
    return all_logprobs[:-1].gather(
        1, torch.tensor(tokens[1:]).unsqueeze(1))[:, 0].tolist()


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def check_score(atod, model, directory, work, dtype="fp32"):
    worst = 0.0
    sequences = prompts(model.config.vocab_size, [2, 17, 75, 160, 333, 1000], 1)
    for temperature in (1.0, 0.4):
        rows = [{"token_ids": s, "spans": [[1, len(s) - 1]]} for s in sequences]
        write_lines(work / "score.jsonl", rows)
        ours = run(atod, "score", "--model", str(directory), "--input",
                   str(work / "score.jsonl"), "--temperature",
                   str(temperature), "--dtype", dtype)
        for sequence, row in zip(sequences, ours):
            theirs = peer_logprobs(model, sequence, temperature)
            worst = max(worst, max(
                abs(a - b) for a, b in zip(row["logprobs"][0], theirs)))
    return worst


def check_bf16(atod, model, directory, work):
    """Ours and the peer's largest distance from the float32 log-probs."""
    sequences = prompts(model.config.vocab_size, [17, 75, 160, 333], 5)
    rows = [{"token_ids": s, "spans": [[1, len(s) - 1]]} for s in sequences]
    write_lines(work / "bf16.jsonl", rows)
    ours = run(atod, "score", "--model", str(directory), "--input",
               str(work / "bf16.jsonl"), "--dtype", "bf16")
    worst = 0.0
    for s, row in zip(sequences, ours):
        worst = max(worst, max(abs(a - b) for a, b in zip(
            row["logprobs"][0], peer_logprobs(model, s, 1.0))))
    return worst, peer_bf16_spread(model, sequences)


def check_generate(atod, model, directory, work, tokens=64):
    sequences = prompts(model.config.vocab_size, [1, 9, 40, 75, 200, 1000], 2)
    write_lines(work / "generate.jsonl",
                [{"id": str(i), "token_ids": s}
                 for i, s in enumerate(sequences)])
    ours = run(atod, "generate", "--model", str(directory), "--input",
               str(work / "generate.jsonl"), "--temperature", "0",
               "--max-tokens", str(tokens))
    same = 0
    for sequence, row in zip(sequences, ours):
        with torch.no_grad():
            theirs = model.generate(
                torch.tensor([sequence]), do_sample=False,
                max_new_tokens=tokens, pad_token_id=0,
                attention_mask=torch.ones(1, len(sequence), dtype=torch.long))
        same += theirs[0, len(sequence):].tolist() == row["token_ids"]
    return same, len(sequences)


def check_export(atod, model, directory, work):
    out = work / "exported"
    subprocess.run([atod, "export", "--model", str(directory), "--out",
                    str(out)], check=True, capture_output=True)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        out, dtype=torch.float32).eval()
    tokens = torch.tensor(prompts(model.config.vocab_size, [60], 3))
    with torch.no_grad():
        return (loaded(tokens).logits - model(tokens).logits).abs().max().item()


def write_golden(directory):
    SHAPES["golden"] = (32, 48, 2, 4, 2, 16, 160, True)
    model = make("golden", directory)
    rows = []
    for sequence in prompts(160, [5, 40, 90], 4):
        rows.append({"token_ids": sequence,
                     "logprobs": peer_logprobs(model, sequence, 1.0)})
    (directory / "expected.json").write_text(json.dumps(
        {"transformers": transformers.__version__, "torch": torch.__version__,
         "rows": rows}) + "\n")


def main():
    atod, work = sys.argv[1], pathlib.Path(sys.argv[2])
    work.mkdir(parents=True, exist_ok=True)
    if "--golden" in sys.argv:
        write_golden(pathlib.Path(sys.argv[sys.argv.index("--golden") + 1]))
        return
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    failed = False
    for name in [*SHAPES, *EXPERTS]:
        directory = work / name
        model = make(name, directory)
        worst = check_score(atod, model, directory, work)
        same, total = check_generate(atod, model, directory, work)
        logits = check_export(atod, model, directory, work)
        low, spread = check_bf16(atod, model, directory, work)
        good = (worst < TOLERANCE and same == total and logits == 0
                and low < 1.5 * spread)
        failed |= not good
        print(f"{name}: largest log-prob difference {worst:.1e}, "
              f"greedy {same}/{total} identical, exported logits differ by "
              f"{logits:.1e}; bfloat16 log-probs {low:.1e} from float32 "
              f"(transformers {spread:.1e}): {'ok' if good else 'FAILED'}",
              flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

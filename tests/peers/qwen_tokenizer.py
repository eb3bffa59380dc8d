"""Makes a tokenizer of Qwen3's own size from `qwen.tiktoken`, which the PyPI
package dashscope ships (151,643 byte strings with their ranks).

usage: qwen_tokenizer.py DASHSCOPE_WHEEL OUT_DIR

Writes tokenizer.json (byte-level BPE with the merges that the ranks mean, and
Qwen3's special tokens behind them) and tokenizer_config.json."""

import base64
import json
import pathlib
import sys
import zipfile

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Qwen3's added tokens in the order of their ids, from 151,643 on: control
# tokens, then those that count as text.
SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>",
    "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>",
    "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
]
PLAIN = [
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>",
    "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
    "<tool_response>", "</tool_response>", "<think>", "</think>",
]


def byte_letters():
    """The printable letter that byte-level BPE writes for each byte."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {b: chr(b) for b in kept}
    for b in range(256):
        if b not in letters:
            letters[b] = chr(256 + len(letters) - len(kept))
    return letters


def parts_of(token, ranks, limit):
    """What byte-pair merging with the ranks below `limit` leaves of token."""
    parts = [token[i:i + 1] for i in range(len(token))]
    while len(parts) > 2:
        best, at = limit, None
        for i in range(len(parts) - 1):
            rank = ranks.get(parts[i] + parts[i + 1], limit)
            if rank < best:
                best, at = rank, i
        if at is None:
            break
        parts[at:at + 2] = [parts[at] + parts[at + 1]]
    return parts


def write(wheel, folder):
    lines = zipfile.ZipFile(wheel).read("dashscope/resources/qwen.tiktoken")
    ranks = {}
    for line in lines.splitlines():
        word, rank = line.split()
        ranks[base64.b64decode(word)] = int(rank)
    letters = byte_letters()

    def text(token):
        return "".join(letters[b] for b in token)

    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) == 1:
            continue
        parts = parts_of(token, ranks, rank)
        assert len(parts) == 2, (token, parts)
        merges.append([text(parts[0]), text(parts[1])])
    added = [
        {"id": len(ranks) + i, "content": content, "single_word": False,
         "lstrip": False, "rstrip": False, "normalized": False,
         "special": i < len(SPECIAL)}
        for i, content in enumerate(SPECIAL + PLAIN)
    ]
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": PATTERN},
             "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False,
             "trim_offsets": False, "use_regex": False}]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False,
                    "trim_offsets": False, "use_regex": False},
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": "", "end_of_word_suffix": "",
                  "fuse_unk": False, "byte_fallback": False,
                  "ignore_merges": False,
                  "vocab": {text(t): r for t, r in ranks.items()},
                  "merges": merges},
    }, ensure_ascii=False))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>", "add_prefix_space": False,
        "model_max_length": 131072}))


if __name__ == "__main__":
    write(*sys.argv[1:3])

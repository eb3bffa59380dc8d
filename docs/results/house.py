#!/usr/bin/env python3
"""How large the pieces of the tree are, what repeats, and how many places a
change touches: docs/results/house.md.

  docs/results/house.py BEFORE AFTER [--write]

BEFORE and AFTER are commits. C++ is counted, of lines and functions without
tests and benchmarks. A function is what ends with a "}" alone, not indented or
by two blanks (a member), and begins at the last line above it that is indented
like it, as clang-format lays code out. A line is repeated when it is part of
six or more that stand, the same but for blanks, somewhere else, too; comments,
includes and lone punctuation do not count. The places of a change are those of
house.json, each of which must be there at AFTER.
"""
import collections
import json
import pathlib
import re
import subprocess
import sys

SOURCE = re.compile(r"^(common|services|report|tests)/.*\.(h|cc|cu)$")
TEST = re.compile(r"_(test|benchmark)\.(h|cc)$")
NO_FUNCTION = re.compile(
    r"^ *(for|if|while|switch|else|do|try|struct|class|enum|union|namespace|extern)\b")
RUN = 6


def git(*args):
    done = subprocess.run(["git", *args], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"error: docs/results/house.py: git {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


def read(commit):
    """path -> lines"""
    return {p: git("show", f"{commit}:{p}").split("\n")
            for p in git("ls-tree", "-r", "--name-only", commit).split("\n") if SOURCE.match(p)}


def without_tests(files):
    return {p: lines for p, lines in files.items() if not TEST.search(p) and not p.startswith("tests/")}


def functions(lines):
    """(name, length) of each"""
    for end, line in enumerate(lines):
        if line not in ("}", "  }"):
            continue
        blanks = line[:-1]
        begins = re.compile(f"^{blanks}[^ #/}}]")
        start = end - 1
        while start > 0 and not begins.match(lines[start]):
            start -= 1
        if NO_FUNCTION.match(lines[start]):
            continue
        name = re.search(r"([\w:~]+)\(", " ".join(lines[start:start + 5]))
        if name:
            yield name.group(1), end - start + 1


def repeated(files):
    """Lines that count, and how many of them are repeated."""
    places = collections.defaultdict(list)
    total = 0
    for path, lines in files.items():
        kept = [" ".join(line.split()) for line in lines]
        kept = [line for line in kept
                if re.search(r"\w", line) and not re.match(r"(//|#\s*include)", line)]
        total += len(kept)
        for i in range(len(kept) - RUN + 1):
            places[tuple(kept[i:i + RUN])].append((path, i))
    twice = set()
    for found in places.values():
        if len(found) > 1:
            twice.update((path, i + k) for path, i in found for k in range(RUN))
    return total, len(twice)


def by_folder(files):
    """folder -> (files, lines, (length, name) of the longest function)"""
    out = {}
    for path, lines in files.items():
        folder = path.rsplit("/", 1)[0]
        count, total, longest = out.get(folder, (0, 0, (0, "")))
        here = max(((n, name) for name, n in functions(lines)), default=(0, ""))
        out[folder] = (count + 1, total + len(lines) - 1, max(longest, here))
    return out


def sizes(before, after):
    yield "| folder | files | lines | longest function before | after |"
    yield "|---|---:|---:|---|---|"
    none = (0, 0, (0, ""))
    folders = {commit: by_folder(files) for commit, files in
               (("before", before), ("after", after))}
    for folder in sorted(set(folders["before"]) | set(folders["after"])):
        b, a = (folders[c].get(folder, none) for c in ("before", "after"))
        say = lambda f: f"{f[2][1]} {f[2][0]}" if f[2][0] else "–"
        yield f"| {folder} | {b[0]} → {a[0]} | {b[1]} → {a[1]} | {say(b)} | {say(a)} |"
    totals = [(len(files), sum(len(lines) - 1 for lines in files.values())) for files in (before, after)]
    yield f"| all | {totals[0][0]} → {totals[1][0]} | {totals[0][1]} → {totals[1][1]} | | |"


def long_functions(files, least=60):
    return sum(n > least for lines in files.values() for _, n in functions(lines))


def questions(commit):
    there = set(git("ls-tree", "-r", "--name-only", commit).split("\n"))
    folders = {p.rsplit("/", k)[0] for p in there for k in range(1, p.count("/") + 1)}
    yield "| change | then | now | places | what still drags |"
    yield "|---|---|---|---|---|"
    for q in json.loads(pathlib.Path("docs/results/house.json").read_text()):
        always, also = q["places"], q["also"]
        for place in always + also:
            # With "+" it is new.
            if not place.startswith("+") and place not in there and place not in folders:
                sys.exit(f"error: docs/results/house.json: {q['change']}: found no {place} "
                         f"at {commit}, expected the places of the change")
        now = f"{len(always)} to {len(always + also)}" if also else len(always)
        places = ", ".join(always) + (f"; at most also {', '.join(also)}" if also else "")
        yield f"| {q['change']} | {q['then']} | {now} | {places} | {q['drags']} |"


def page(before, after):
    whole = [read(before), read(after)]
    trees = [without_tests(files) for files in whole]
    yield "# The house: sizes, repeats, places"
    yield ""
    yield f"Made by `docs/results/house.py {before} {after} --write`; the script says what is counted how."
    yield ""
    for name, commit in (("before", before), ("after", after)):
        yield git("log", "-1", f"--format={name}: %h %s", commit).strip() + "  "
    yield ""
    yield "## Lines and longest functions"
    yield ""
    yield from sizes(*trees)
    yield ""
    repeats = [repeated(files) for files in whole]
    yield (f"Functions of more than 60 lines: {long_functions(trees[0])} before, "
           f"{long_functions(trees[1])} after. Repeated lines, tests among them: {repeats[0][1]} of "
           f"{repeats[0][0]} before, {repeats[1][1]} of {repeats[1][0]} after.")
    yield ""
    yield "## A stranger's questions: how many places a change touches"
    yield ""
    yield ("Without tests, documents, and what is generated; + is a new file. \"Then\" is what a "
           "reader who had never been here counted at 7e50fe9, \"now\" the places named beside it.")
    yield ""
    yield from questions(after)


def main():
    args = [a for a in sys.argv[1:] if a != "--write"]
    if len(args) != 2:
        print("error: docs/results/house.py: commits: expected BEFORE and AFTER", file=sys.stderr)
        return 2
    text = "\n".join(page(*args)) + "\n"
    if "--write" in sys.argv:
        pathlib.Path("docs/results/house.md").write_text(text)
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())

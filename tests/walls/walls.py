#!/usr/bin/env python3
"""Checks the three walls of the layout by reading includes.

  torch     only in common/{model,device,collective} and in services' files
            named *trainer.cc, *scorer.cc, and the optimiser that
            the trainers share (adamw)
  grpc      only in common/rpc and in files named *_service, *_client, *_main
  protobuf  (generated) not in models, engines, kernels, collectives or the
            algorithm's pieces

A test or benchmark may include what the file it is named after may. For torch
and protobuf a header of this repository counts with all that it includes, so
that a wall cannot be walked around; for gRPC only a file's own includes count,
for a *_client.h is made to be included. Usage: walls.py [ROOT]; `walls.py
--self-test` checks the checker.
"""
import os
import re
import sys

INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.M)
ROOTS = ("common", "services", "report", "tests")
WALLS = {
    "torch": re.compile(r"^(torch|ATen|c10|c10d)/"),
    "grpc": re.compile(r"^(grpcpp|grpc)/|\.grpc\.pb\.h$"),
    "protobuf": re.compile(r"\.pb\.h$|^google/protobuf/"),
}


def subject(path):
    """The path without _test, _benchmark and the suffix."""
    return re.sub(r"(_test|_benchmark)?\.(h|cc|cu)$", "", path)


def allowed(wall, path):
    name = os.path.basename(subject(path))
    if wall == "torch":
        if path.startswith(("common/model/", "common/device/", "common/collective/",
                            "services/learner/adamw")):
            return True
        return path.endswith(".cc") and name.endswith(("trainer", "scorer"))
    if wall == "grpc":
        return path.startswith("common/rpc/") or name.endswith(("_service", "_client", "_main"))
    return not (
        path.startswith(("common/model/", "common/device/", "common/collective/",
                         "common/engine/", "services/learner/algorithm/")))


def includes(files):
    """path -> {wall: chain of includes that reaches it}, for {path: text}."""
    direct = {path: INCLUDE.findall(text) for path, text in files.items()}
    reached = {}

    def reach(path, stack):
        if path in reached:
            return reached[path]
        found = {}
        for name in direct[path]:
            for wall, pattern in WALLS.items():
                if pattern.search(name):
                    found.setdefault(wall, [name])
            if name in direct and name not in stack:
                for wall, chain in reach(name, stack | {name}).items():
                    if wall != "grpc":
                        found.setdefault(wall, [name] + chain)
        reached[path] = found
        return found

    for path in direct:
        reach(path, {path})
    return reached


def breaches(files):
    out = []
    for path, found in sorted(includes(files).items()):
        for wall, chain in found.items():
            if not allowed(wall, path):
                out.append(f"{path}: found {wall} by {' > '.join(chain)}, expected none here")
    return out


def read_tree(root):
    files = {}
    for top in ROOTS:
        for folder, _, names in os.walk(os.path.join(root, top)):
            for name in names:
                if name.endswith((".h", ".cc", ".cu")):
                    path = os.path.join(folder, name)
                    with open(path, encoding="utf-8") as f:
                        files[os.path.relpath(path, root)] = f.read()
    return files


def self_test():
    clean = {
        "common/model/model.h": '#include "torch/nn/module.h"\n',
        "services/learner/token_trainer.cc": '#include "common/model/model.h"\n',
        "services/learner/token_trainer_test.cc": '#include <ATen/ATen.h>\n',
        "services/teacher/teacher_client.h": '#include <grpcpp/grpcpp.h>\n',
        "services/learner/intake.h": '#include "atod/v1/x.pb.h"\n',
        "services/cli/calls.cc": '#include "services/teacher/teacher_client.h"\n',
    }
    assert breaches(clean) == [], breaches(clean)
    for path, text in {
        "services/learner/ledger.cc": '#include "torch/torch.h"\n',
        "services/learner/token_trainer.h": '#include "common/model/model.h"\n',
        "services/cli/x.cc": '#include "grpcpp/channel.h"\n',
        "services/learner/algorithm/advantages.cc": '#include "services/learner/intake.h"\n',
        "common/device/device.h": "#  include <atod/v1/config.pb.h>\n",
        "common/engine/engine.h": '#include "services/learner/intake.h"\n',
    }.items():
        found = breaches({**clean, path: text})
        assert len(found) == 1 and found[0].startswith(path), (path, found)


def main():
    if sys.argv[1:] == ["--self-test"]:
        self_test()
        print("walls: the checker finds what it should")
        return 0
    files = read_tree(sys.argv[1] if len(sys.argv) > 1 else ".")
    if not files:
        print("error: no source files found", file=sys.stderr)
        return 2
    found = breaches(files)
    for line in found:
        print(line)
    print(f"walls: {len(files)} files, {len(found)} breaches")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

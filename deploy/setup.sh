#!/usr/bin/env bash
# Installs what ATOD builds and runs with on Debian 12 (or Ubuntu 24.04):
# packages, and LibTorch from its PyPI wheel. Run again at will: what is
# present is kept.
#
#   deploy/setup.sh [--tests] [--cuda]
#     --tests  also what only tests/run.sh needs
#     --cuda   also the CUDA libraries that libatod_cuda.so loads, for a GPU
#              box without a CUDA toolkit
#   ATOD_CACHE  where LibTorch is kept (default ~/.cache/atod)
set -euo pipefail

say() { printf '\033[1m[setup]\033[0m %s\n' "$*" >&2; }

tests= cuda=
for arg in "$@"; do
  case $arg in
    --tests) tests=1 ;;
    --cuda) cuda=1 ;;
    *) echo "error: deploy/setup.sh: unknown option $arg, expected --tests or --cuda" >&2; exit 2 ;;
  esac
done

packages=(
  g++ cmake ninja-build ccache mold pkg-config git unzip ca-certificates
  python3 python3-pip
  libprotobuf-dev protobuf-compiler libgrpc++-dev protobuf-compiler-grpc
  libabsl-dev libyaml-cpp-dev nlohmann-json3-dev libsqlite3-dev
  libpcre2-dev libutf8proc-dev libxxhash-dev zlib1g-dev libspdlog-dev libcli11-dev
  prometheus-cpp-dev libgtest-dev libgmock-dev libbenchmark-dev gnuplot-nox
)
if [[ $tests ]]; then
  packages+=(clang-format prometheus docker-compose python3-venv curl)
fi

missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
done
if ((${#missing[@]})); then
  say "installing ${#missing[@]} Debian packages: ${missing[*]}"
  as_root=()
  if [[ $(id -u) != 0 ]]; then as_root=(sudo); fi
  "${as_root[@]}" apt-get update -qq
  # A test machine must not gain running services: packages only.
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
    --no-install-recommends "${missing[@]}" >/dev/null
else
  say "Debian packages: all present"
fi

cache=${ATOD_CACHE:-$HOME/.cache/atod}
torch_version=2.11.0
dir=$cache/libtorch-$torch_version

# fetch NAME==VERSION SHA256 FILES…: downloads one wheel through pip's own
# configuration, checks it, and unpacks FILES from it into $dir.
fetch() {
  local what=$1 sha=$2; shift 2
  local tmp; tmp=$(mktemp -d "$cache/fetch.XXXXXX")
  say "fetching $what"
  python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: \
    --python-version 3.11 --platform manylinux_2_28_x86_64 \
    --platform manylinux_2_27_x86_64 --platform manylinux_2_25_x86_64 \
    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    -d "$tmp" "$what"
  local wheel; wheel=$(ls "$tmp"/*.whl)
  if ! echo "$sha  $wheel" | sha256sum -c --quiet -; then
    echo "error: $what: sha256 is $(sha256sum "$wheel" | cut -d' ' -f1), expected $sha" >&2
    rm -rf "$tmp"; exit 1
  fi
  unzip -q -o "$wheel" "$@" -d "$dir.part"
  rm -rf "$tmp"
}

if [[ -e $dir/complete ]]; then
  say "LibTorch $torch_version: present in $dir"
else
  mkdir -p "$cache"
  rm -rf "$dir.part"; mkdir -p "$dir.part"
  fetch torch==$torch_version 7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a \
    'torch/lib/*.so*' 'torch/include/*'
  fetch nvidia-cuda-runtime==13.0.96 7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548 \
    'nvidia/cu13/lib/*'
  fetch nvidia-cuda-cupti==13.0.85 4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8 \
    'nvidia/cu13/lib/*'
  rm -f "$dir.part/torch/lib/libtorch_python.so"
  touch "$dir.part/complete"
  rm -rf "$dir"; mv "$dir.part" "$dir"
  say "LibTorch $torch_version: ready in $dir"
fi

#!/usr/bin/env bash
# Installs what ATOD builds and runs with on Debian 12 (or Ubuntu 24.04):
# packages, and LibTorch from its PyPI wheel. Run again at will: what is
# present is kept.
#
#   deploy/setup.sh [--tests] [--fuzz] [--cuda]
#     --tests  also what only tests/run.sh needs
#     --fuzz   also what only tests/fuzz/run.sh needs
#     --cuda   also the CUDA libraries that libatod_cuda.so loads, for a GPU
#              box without a CUDA toolkit
#   ATOD_CACHE  where LibTorch is kept (default ~/.cache/atod)
set -euo pipefail

say() { printf '\033[1m[setup]\033[0m %s\n' "$*" >&2; }

tests= fuzz= cuda=
for arg in "$@"; do
  case $arg in
    --tests) tests=1 ;;
    --fuzz) fuzz=1 ;;
    --cuda) cuda=1 ;;
    *) echo "error: deploy/setup.sh: unknown option $arg, expected --tests, --fuzz or --cuda" >&2; exit 2 ;;
  esac
done

packages=(
  g++ cmake ninja-build ccache mold pkg-config git unzip ca-certificates
  python3 python3-pip
  libprotobuf-dev protobuf-compiler libgrpc++-dev protobuf-compiler-grpc
  libabsl-dev libyaml-cpp-dev nlohmann-json3-dev libsqlite3-dev
  libpcre2-dev libutf8proc-dev libxxhash-dev zlib1g-dev libspdlog-dev libcli11-dev
  prometheus-cpp-dev libgtest-dev libgmock-dev libbenchmark-dev
)
if [[ $tests ]]; then
  # make and python: what pip builds of TextWorld needs.
  packages+=(clang-format prometheus docker-compose python3-venv curl procps make python-is-python3)
fi

if [[ $fuzz ]]; then packages+=(clang-14 libclang-rt-14-dev); fi

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
# configuration, checks it, and unpacks FILES from it into the folder $into.
fetch() {
  local what=$1 sha=$2; shift 2
  local tmp; tmp=$(mktemp -d "$cache/fetch.XXXXXX")
  say "fetching $what"
  python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: \
    --python-version 3.11 --platform manylinux_2_28_x86_64 \
    --platform manylinux_2_27_x86_64 --platform manylinux_2_25_x86_64 \
    --platform manylinux_2_18_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 \
    -d "$tmp" "$what"
  local wheel; wheel=$(ls "$tmp"/*.whl)
  if ! echo "$sha  $wheel" | sha256sum -c --quiet -; then
    echo "error: $what: sha256 is $(sha256sum "$wheel" | cut -d' ' -f1), expected $sha" >&2
    rm -rf "$tmp"; exit 1
  fi
  unzip -q -o "$wheel" "$@" -d "$into"
  rm -rf "$tmp"
}

if [[ -e $dir/complete ]]; then
  say "LibTorch $torch_version: present in $dir"
else
  mkdir -p "$cache"
  into=$dir.part
  rm -rf "$into"; mkdir -p "$into"
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

# What libtorch_cuda.so needs beside the driver; its run path finds them there.
if [[ $cuda && -e $dir/complete-cuda ]]; then
  say "CUDA libraries: present in $dir"
elif [[ $cuda ]]; then
  into=$dir
  while read -r what sha; do
    files=('nvidia/*/lib/*.so*')
    # Headers of NCCL: tests/gpu/run.sh builds against the same version.
    if [[ $what == nvidia-nccl-* ]]; then files+=('nvidia/nccl/include/*'); fi
    fetch "$what" "$sha" "${files[@]}" </dev/null
  done <<'PINS'
nvidia-cublas==13.1.0.3 ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171
nvidia-cuda-nvrtc==13.0.88 ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575
nvidia-cudnn-cu13==9.19.0.56 d20e1734305e9d68889a96e3f35094d733ff1f83932ebe462753973e53a572bf
nvidia-cufft==12.0.0.61 6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3
nvidia-cufile==1.15.1.6 08a3ecefae5a01c7f5117351c64f17c7c62efa5fffdbe24fc7d298da19cd0b44
nvidia-curand==10.4.0.35 1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc
nvidia-cusolver==12.0.4.66 0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112
nvidia-cusparse==12.6.3.3 2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b
nvidia-cusparselt-cu13==0.8.0 25e30a8a7323935d4ad0340b95a0b69926eee755767e8e0b1cf8dd85b197d3fd
nvidia-nccl-cu13==2.28.9 e4553a30f34195f3fa1da02a6da3d6337d28f2003943aa0a3d247bbc25fefc42
nvidia-nvjitlink==13.0.88 13a74f429e23b921c1109976abefacc69835f2f433ebd323d3946e11d804e47b
nvidia-nvshmem-cu13==3.4.5 290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80
PINS
  touch "$dir/complete-cuda"
  say "CUDA libraries: ready in $dir"
fi

#!/usr/bin/env bash
# Lays out what an image needs below IMAGE: the programs of BIN_DIR in
# /opt/atod/bin, deploy/ in /opt/atod/deploy, and every library that they load
# at its own path.
#
#   deploy/image-tree.sh BIN_DIR IMAGE
set -euo pipefail
bin=$1 image=$2
mkdir -p "$image/opt/atod/bin"
cp "$bin"/atod* "$image/opt/atod/bin/"
for plugin in "$bin"/lib*.so; do
  if [[ -e $plugin ]]; then cp "$plugin" "$image/opt/atod/bin/"; fi
done
strip --strip-unneeded "$image"/opt/atod/bin/*
cp -r "$(dirname "$0")" "$image/opt/atod/deploy"
ln -s /opt/atod/deploy/atod-prepare "$image/opt/atod/bin/atod-prepare"

# The base image keeps its own C library: it belongs to its loader.
own='/(libc|libm|libdl|librt|libpthread|libresolv|libutil|libnsl)\.so\.[0-9]+$'
ldd "$bin"/atod* | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
  { grep -Ev "$own" || true; } |
  while read -r library; do
    # /lib is a link to /usr/lib: the tree has real folders only.
    folder=$(readlink -f "$(dirname "$library")")
    install -D -m 644 "$library" "$image$folder/$(basename "$library")"
  done

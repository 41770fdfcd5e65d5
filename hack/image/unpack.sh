#!/usr/bin/env bash
# Lays out the files of an image, as the kubelet would:
#   unpack.sh ARCHIVE.tar FOLDER
# ARCHIVE.tar is a docker-archive, as build.sh makes it with every ENGINE; FOLDER is made, or empty.
set -euo pipefail
[ $# -eq 2 ] || { sed -n '2,4s/^# \?//p' "$0" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -xf "$1" -C "$work"
mkdir -p "$2"
jq -r '.[0].Layers[]' "$work/manifest.json" | while read -r layer; do
  tar --no-same-owner -xpf "$work/$layer" -C "$2"
done

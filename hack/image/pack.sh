#!/usr/bin/env bash
# Packs a folder as a container image of one layer, without a container engine:
#   pack.sh NAME:TAG FOLDER CONFIG OUT.tar
# CONFIG is the `config` object of an OCI image in JSON, {"Entrypoint":["/pause"]} at least.
# OUT.tar is a docker-archive, for `ctr images import`, `docker load` and `podman load`; the
# same folder, name and configuration give the same bytes. Prints the image's ID.
set -euo pipefail
[ $# -eq 4 ] || { sed -n '2,6s/^# \?//p' "$0" >&2; exit 2; }
name=$1 folder=$2 config=$3 out=$4
case $(uname -m) in
  x86_64) architecture=amd64 ;;
  aarch64) architecture=arm64 ;;
  *) echo "pack.sh: no name for the processor $(uname -m) in an image; expected x86_64 or aarch64" >&2; exit 1 ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
same=(tar --format=gnu --mtime=@0 --owner=0 --group=0 --numeric-owner)
"${same[@]}" --sort=name -C "$folder" -cf "$work/layer.tar" .
layer=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
created=1970-01-01T00:00:00Z
printf '{"architecture":"%s","os":"linux","created":"%s","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"%s"}]}' \
  "$architecture" $created "$config" "$layer" $created >"$work/config.json"
printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$name" >"$work/manifest.json"
"${same[@]}" --mode=0644 -C "$work" -cf "$out" manifest.json config.json layer.tar
echo "sha256:$(sha256sum "$work/config.json" | cut -d' ' -f1)"

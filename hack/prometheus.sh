#!/usr/bin/env bash
# Prints a folder that holds `prometheus` and `promtool` (2.42 or newer):
#   PATH=$(hack/prometheus.sh):$PATH
# Those in PATH if both are there, else the ones of the system's own Debian package, kept in the
# cache. It is unpacked rather than installed, so no service is started. Exits 3 with the reason
# where there is no such package; tests may skip themselves then.
set -euo pipefail
cache=${XDG_CACHE_HOME:-$HOME/.cache}/secure-inference
bin=$cache/prometheus
die() { echo "prometheus.sh: $*" >&2; exit 1; }
cannot() { echo "prometheus.sh: no prometheus 2.42 or newer and promtool in PATH, and $*; install them" >&2; exit 3; }

recent() { # PROGRAM
  local version
  version=$("$1" --version 2>&1 | sed -n '1s/.*version \([0-9]*\.[0-9]*\).*/\1/p')
  [ -n "$version" ] && printf '2.42\n%s\n' "$version" | sort -CV
}

mkdir -p "$cache"
exec 9>"$bin.lock" # several tests may ask at once
flock 9
if command -v prometheus >/dev/null && command -v promtool >/dev/null && recent prometheus && recent promtool; then
  mkdir -p "$bin"
  for tool in prometheus promtool; do ln -sfn "$(command -v $tool)" "$bin/$tool"; done
elif ! [ -x "$bin/promtool" ] || ! recent "$bin/prometheus"; then
  work=$(mktemp -d "$cache/prometheus.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  reason=$("$(dirname "$0")/debian.sh" prometheus "$work/unpacked" 2>&1) || cannot "$reason"
  mkdir "$work/bin"
  mv "$work"/unpacked/usr/bin/{prometheus,promtool} "$work/bin"
  recent "$work/bin/prometheus" || cannot "the package has $("$work/bin/prometheus" --version 2>&1 | head -1)"
  recent "$work/bin/promtool" || die "promtool of the package does not run"
  rm -rf "$bin"
  mv -T "$work/bin" "$bin"
fi
echo "$bin"

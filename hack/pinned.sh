#!/usr/bin/env bash
# Prints a folder that holds a tool of the one version that is pinned here:
#   PATH=$(hack/pinned.sh TOOL):$PATH
#   cargo-deny        checks dependencies; built the first time, 3 minutes
#   cargo-cyclonedx   lists them as a bill of materials; built the first time, 3 minutes
#   cargo-semver-checks  compares a library's interface with an earlier one's; built, 5 minutes
#   cyclonedx         a `python3` that can validate one
#   kingfisher        looks for secrets
# The first time it comes from the registries of cargo and pip, then from the cache.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/secure-inference
die() { echo "pinned.sh: $*" >&2; exit 1; }

tool=${1:-}
case $tool in
  cargo-deny) pin=0.20.2 ;;
  cargo-cyclonedx) pin=0.5.9 ;;
  cargo-semver-checks) pin=0.51.0 ;;
  cyclonedx | kingfisher) pin=$(sha256sum "pinned/$tool.txt" | cut -c1-12) ;;
  *) sed -n '2,9s/^# \?//p' "${0##*/}" >&2; exit 2 ;;
esac
folder=$cache/$tool-$pin

mkdir -p "$cache"
exec 9>"$cache/$tool.lock" # several may ask at once
flock 9
if ! [ -e "$folder/complete" ]; then
  rm -rf "$folder"
  case $tool in
    cargo-*)
      CARGO_TARGET_DIR=$folder/build "${CARGO:-cargo}" install --locked --quiet --no-track --root "$folder" "$tool" --version "=$pin" >&2 ||
        die "cargo cannot install $tool $pin (above)"
      rm -rf "$folder/build"
      ;;
    *)
      python3 -m venv "$folder" || die "python3 cannot make a virtual environment; on Debian that takes the package python3-venv"
      "$folder/bin/pip" --quiet install --require-hashes --only-binary :all: --requirement "pinned/$tool.txt" >&2 ||
        die "pip cannot install what hack/pinned/$tool.txt lists (above)"
      ;;
  esac
  touch "$folder/complete"
fi
echo "$folder/bin"

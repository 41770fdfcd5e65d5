#!/usr/bin/env bash
# Prints the path of a Chromium, for the tests of the report's page: the one in PATH, or else
# Debian's, installed. Exits with 3 and the reason where there is none to be had.
set -euo pipefail
cannot() { echo "chromium.sh: $*" >&2; exit 3; }
find_it() {
  local name
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$name" && return
  done
  return 1
}

find_it && exit
# shellcheck source=/dev/null
[ "$(. /etc/os-release 2>/dev/null && echo "${ID:-}")" = debian ] || cannot "no Chromium in PATH, and this is not Debian; install one"
[ "$(id -u)" = 0 ] || cannot "no Chromium in PATH; install it: apt-get install chromium"
export DEBIAN_FRONTEND=noninteractive
cache=${XDG_CACHE_HOME:-$HOME/.cache}/secure-inference
mkdir -p "$cache"
exec 9>"$cache/chromium.lock" # several tests may ask at once
flock 9
install() { timeout 400 apt-get -q -o DPkg::Lock::Timeout=120 install -y --no-install-recommends chromium >&2; }
find_it && exit
# The package lists may be missing or old.
install || { timeout 120 apt-get -q update >&2 && install; } || cannot "Debian's chromium cannot be installed; is there a network?"
find_it || cannot "Debian's chromium was installed, and is not in PATH"

#!/usr/bin/env bash
# Prints the path of libfaketime.so.1, which shows a process another time: the system's, or else
# the one of Debian's package, kept in the cache. Exits 3 with the reason where there is none to be
# had; tests may skip themselves then.
set -euo pipefail
cache=${XDG_CACHE_HOME:-$HOME/.cache}/secure-inference/faketime
cannot() { echo "faketime.sh: no libfaketime.so.1, and $*; install libfaketime" >&2; exit 3; }
find_it() { # FOLDER...
  local found
  found=$(find "$@" -name libfaketime.so.1 -print -quit 2>/dev/null)
  [ -n "$found" ] && echo "$found"
}

find_it /usr/lib /usr/local/lib && exit
mkdir -p "$cache"
exec 9>"$cache.lock" # several tests may ask at once
flock 9
find_it "$cache" && exit
reason=$("$(dirname "$0")/debian.sh" libfaketime "$cache" 2>&1) || cannot "$reason"
find_it "$cache" || cannot "Debian's package has none"

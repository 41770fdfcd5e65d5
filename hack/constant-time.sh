#!/usr/bin/env bash
# Runs whole sessions under valgrind with all keys undefined, and fails if a branch or an address depends on
# one; see spdz/benches/constant_time.rs. Valgrind knows no AVX-512, so it is the code for AVX2 that is checked.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v valgrind >/dev/null || { echo "constant-time.sh: there is no valgrind; apt-get install valgrind" >&2; exit 1; }
program=$("${CARGO:-cargo}" bench --locked --package spdz --bench constant_time --no-run --message-format json |
  jq -r 'select(.reason == "compiler-artifact" and .target.name == "constant_time") | .executable')
[ -x "$program" ] || { echo "constant-time.sh: cargo built no program" >&2; exit 1; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! valgrind --quiet --error-limit=no --suppressions=hack/constant-time.supp --log-file="$log" "$program"; then
  echo "constant-time.sh: what depends on secrets, as memcheck reports it:" >&2
  head -100 "$log" >&2
  exit 1
fi

#!/usr/bin/env bash
# Checks what the project depends on against deny.toml: licences, sources, versions, and known
# vulnerabilities. Those come from a database on a git host; where it cannot be reached the script
# says so and checks the rest, and fails if REQUIRE_ADVISORIES=1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=$(hack/pinned.sh cargo-deny)
PATH=$folder:$PATH

checks=(licenses sources)
if cargo deny --locked fetch db; then checks+=(advisories); fi
failed=
deny() { # FOLDER ARGUMENTS
  echo "$1: ${*:2}"
  cargo deny --locked --manifest-path "$1/Cargo.toml" --config deny.toml "${@:2}" || failed=1
}
# Two versions of a crate matter in the programs. What bench's feature for clusters adds the operator has too.
deny . check bans
deny . --all-features check "${checks[@]}"
# The fuzz targets have a lock of their own, and not all of what the lists are for.
deny fuzz check --allow license-not-encountered --allow license-exception-not-encountered --allow unmatched-skip \
  --allow advisory-not-detected bans "${checks[@]}"

if [ "${checks[*]: -1}" != advisories ]; then
  echo "supply-chain.sh: KNOWN VULNERABILITIES WERE NOT CHECKED, because the database of advisories cannot be fetched (above)" >&2
  [ "${REQUIRE_ADVISORIES:-}" != 1 ] || failed=1
fi
[ -z "$failed" ]

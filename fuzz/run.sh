#!/usr/bin/env bash
# Fuzzes every decoder for some seconds each, starting from its corpus. New inputs are kept in the
# build's folder, and inputs that fail in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:?how many seconds for each decoder}
found=${CARGO_TARGET_DIR:-$PWD/target}/corpus

missing=()
cargo fuzz --version >/dev/null 2>&1 || missing+=("cargo-fuzz: cargo install --locked cargo-fuzz")
command -v c++ >/dev/null || missing+=("a C++ compiler, for libFuzzer: apt-get install g++")
if ((${#missing[@]})); then
  echo "fuzzing needs:" >&2
  printf '  %s\n' "${missing[@]}" >&2
  echo "A test of the same decoders needs neither: cargo test --locked -p decoders" >&2
  exit 1
fi

# The stable toolchain has the compiler options that are needed. There is no sanitizer, because
# outside the kernels, which no decoder reaches, there is no unsafe code.
export RUSTC_BOOTSTRAP=1
cargo metadata --locked --format-version 1 >/dev/null # cargo-fuzz itself would update a lock file that is out of date
cargo fuzz build --sanitizer none

failed=()
for target in $(cargo fuzz list); do
  echo "== $target, $seconds s"
  mkdir -p "$found/$target"
  if ! cargo fuzz run --sanitizer none "$target" "$found/$target" "$PWD/corpus/$target" -- \
    -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
    >"$found/$target.log" 2>&1; then
    failed+=("$target")
    tail -n 40 "$found/$target.log"
  fi
  grep -E 'INITED|DONE|stat::(number|average|slowest|peak)' "$found/$target.log" || true
done
if ((${#failed[@]})); then
  echo "failed: ${failed[*]}; the inputs are in fuzz/artifacts" >&2
  exit 1
fi

#!/usr/bin/env bash
# Builds the image twice and compares all files and the archive, byte for byte: from two clones
# of the commit that is checked out, in folders of other names, with nothing built before, another
# name for cargo's own folder, another time zone and another umask.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=$(pwd -P)
die() { echo "reproducible.sh: $*" >&2; exit 1; }

[ -z "$(git status --porcelain)" ] || echo "reproducible.sh: what is not committed is not built" >&2
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
mkdir -p "$target"
work=$(mktemp -d "$target/reproducible.XXXXXX")
mkdir -p "${CARGO_HOME:=$HOME/.cargo}"

build() { # NAME TIMEZONE UMASK
  local folder=$work/$1
  mkdir "$folder"
  git clone --quiet "$here" "$folder/sources-of-$1"
  ln -s "$CARGO_HOME" "$folder/cargo" # what has been downloaded, by another name
  (
    umask "$3"
    export CARGO_HOME=$folder/cargo CARGO_TARGET_DIR=$folder/built TZ=$2
    "$folder/sources-of-$1/hack/image/build.sh"
  ) >&2
  hack/image/unpack.sh "$folder/built/image/secure-inference.tar" "$folder/files"
  (cd "$folder/files" && find . -type f -printf '%m %P\n' | LC_ALL=C sort -k 2 |
    while read -r mode file; do printf '%s %s %s\n' "$(sha256sum <"$file" | cut -d' ' -f1)" "$mode" "$file"; done) >"$folder/sums"
  sha256sum <"$folder/built/image/secure-inference.tar" | sed 's/ .*/ archive/' >>"$folder/sums"
  echo "$(cat "$folder/built/image/secure-inference.tar.id") image" >>"$folder/sums"
  rm -rf "$folder/sources-of-$1" # the build folder stays for who wants to know what differs
}
build one UTC 022
build another-one Asia/Kathmandu 077

if ! difference=$(diff "$work/one/sums" "$work/another-one/sums"); then
  echo "$difference" >&2
  die "the two builds of $(git rev-parse --short=12 HEAD) differ in the above; they are in $work, and diffoscope says where files differ"
fi
cat "$work/one/sums"
rm -rf "$work"
echo "the same commit gave the same image twice"

#!/usr/bin/env bash
# Builds the programs and lays out the image's root folder at $CARGO_TARGET_DIR/image/root: the
# programs, the libraries they are linked to, models, test set and references; nothing else.
# It needs a glibc of 2.34 or newer, which has the name lookups built in. Prints the folder.
set -euo pipefail
umask 022
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
programs=(party bench operator)
most=75000000 # bytes; nodes pull it before a job can start
target=${CARGO_TARGET_DIR:-target}
root=$target/image/root
share=usr/share/secure-inference
references=$target/image/references
die() { echo "root.sh: $*" >&2; exit 1; }

libc=$(getconf GNU_LIBC_VERSION 2>/dev/null || echo none)
[ "$(printf '%s\n' "glibc 2.34" "$libc" | sort -V | head -1)" = "glibc 2.34" ] || die "the C library is $libc; expected glibc 2.34 or newer"

# The same commit, built elsewhere with the same compilers and C library, gives the same bytes:
# programs do not say where they were built, by whom or when. These flags take the place of the builder's own.
flags=()
for folder in "$(pwd -P)=/source" "$(realpath -ms "$target")=/target" "${CARGO_HOME:-$HOME/.cargo}=/cargo"; do
  flags+=("--remap-path-prefix=$folder")
done
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; echo "${flags[*]}")
export CARGO_ENCODED_RUSTFLAGS SOURCE_DATE_EPOCH=0
"${CARGO:-cargo}" build --locked --profile packed "${programs[@]/#/--package=}" --features bench/cluster >&2

rm -rf "$root"
put() { install -D -m "$1" "$2" "$root/$3"; }
for program in "${programs[@]}"; do
  put 755 "$target/packed/$program" "usr/bin/$program"
  # Cargo forgets the profile's own `strip` for a package with other settings in it.
  strip "$root/usr/bin/$program"
done
# With the loader, whose path the programs hold.
for library in $(for program in "${programs[@]}"; do ldd "$root/usr/bin/$program"; done | grep -o '/[^ ]*' | sort -u); do
  put 755 "$library" "$library"
done

put 644 LICENSE usr/share/doc/secure-inference/LICENSE
# Their names, and which they are for bench.
networks="a --networks=A
a-relu --networks=A --activation=relu
b --networks=B
b-relu --networks=B --activation=relu
b-relu-max --networks=B --activation=relu --pooling=max
c --networks=C
c-relu --networks=C --activation=relu
c-relu-max --networks=C --activation=relu --pooling=max"
while read -r name _; do put 644 "bench/models/$name.safetensors" "$share/models/$name.safetensors"; done <<<"$networks"
for name in t10k-images-idx3-ubyte.gz t10k-labels-idx1-ubyte.gz; do put 644 bench/data/$name "$share/mnist/$name"; done
# Seconds of work, so only when the program, the weights or the images are newer.
while read -r name network; do
  made=$references/$name.safetensors
  for source in "$target/packed/bench" "bench/models/$name.safetensors" bench/data/t10k-images-idx3-ubyte.gz; do
    if ! [ "$made" -nt "$source" ]; then
      # shellcheck disable=SC2086 # several arguments
      "$target/packed/bench" reference $network --out "$references" </dev/null >&2
      break
    fi
  done
  put 644 "$made" "$share/references/$name.safetensors"
done <<<"$networks"

mkdir -p "$root/etc"
install -d -m 1777 "$root/tmp"
printf 'root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\nnonroot:x:65532:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"

size=$(du -sb --apparent-size "$root" | cut -f1)
[ "$size" -le $most ] || die "the image's files take $size bytes; expected at most $most. See what grew: du -a $root | sort -n"
echo "$root"

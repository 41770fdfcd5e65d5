#!/usr/bin/env bash
# Lists what is in the image of `make image`, in CycloneDX's JSON, beside it: the programs with
# their hashes, every crate in them with version, licence and checksum, the system's libraries with
# their packages, and all other files. The same image gives the same list. Prints its path.
set -euo pipefail
shopt -s inherit_errexit
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
programs=(party bench operator)
archive=${CARGO_TARGET_DIR:-target}/image/secure-inference.tar
sbom=${archive%.tar}.cdx.json
die() { echo "sbom.sh: $*" >&2; exit 1; }
folder=$(hack/pinned.sh cargo-cyclonedx)
PATH=$folder:$PATH
triple=$(rustc -vV | sed -n 's/^host: //p')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

[ -e "$archive" ] || die "there is no image $archive; make image"
"$here/unpack.sh" "$archive" "$work/image"
label() { tar -xOf "$archive" "$(tar -xOf "$archive" manifest.json | jq -r '.[0].Config')" | jq -r ".config.Labels.\"org.opencontainers.image.$1\""; }
here_is=$(git describe --always --abbrev=40 --exclude='*' --dirty)
[ "$(label revision)" = "$here_is" ] || die "the image is of $(label revision), but the sources are $here_is; make image"
image=$(jq -n --arg name secure-inference --arg version "$(label version)" --arg revision "$here_is" \
  --arg id "$(sed 's/^sha256://' "$archive.id")" '$ARGS.named')

# The tool writes beside each manifest, so it gets a copy; of the code it only wants to know that it is there.
git ls-files -z -- '*.toml' '*.rs' '*.md' Cargo.lock | xargs -0 cp --parents -t "$work" --
(cd "$work" && SOURCE_DATE_EPOCH=0 cargo cyclonedx --quiet --format json --spec-version 1.5 --describe binaries --no-build-deps --features bench/cluster --target "$triple")
# It takes in what features of tests or of other members would; cargo knows what is built in.
crates=$(cargo tree --locked "${programs[@]/#/--package=}" --features bench/cluster --edges normal,no-proc-macro --target "$triple" --prefix none --format '{p}' |
  awk '{print $1 "@" substr($2, 2)}' | sort -u | jq -nR '[inputs]')

hash() { sha256sum <"$1" | cut -d' ' -f1; }
hashes=$(for program in "${programs[@]}"; do
  jq -n --arg name "$program" --arg hash "$(hash "$work/image/usr/bin/$program")" '{($name): $hash}'
done | jq -s add)
files=$( (cd "$work/image" && find . -type f ! -path './usr/bin/*' -printf '/%P\n' | LC_ALL=C sort) | while read -r file; do
  package=
  # The machine's own, as `make image` takes it, by the name that it has now or had before /lib became
  # /usr/lib; of those that an engine brings only the hash is known.
  if command -v dpkg-query >/dev/null && cmp -s "$file" "$work/image$file"; then
    package=$(dpkg-query --search "$file" "/usr$file" 2>/dev/null | cut -d: -f1 | sort -u | xargs -r dpkg-query --show --showformat '${Package}\t${Version}\t${Architecture}' || true)
  fi
  case $file in
    *.safetensors | *.gz) kind=data ;;
    *) kind=file ;;
  esac
  jq -n --arg file "$file" --arg hash "$(hash "$work/image$file")" --arg kind "$kind" --arg package "$package" \
    --arg system "$(. /etc/os-release && echo "$ID")" '
    {type: $kind, "bom-ref": ("file:" + $file), name: $file, hashes: [{alg: "SHA-256", content: $hash}]}
    + if $package == "" then {} else ($package / "\t") as [$name, $version, $architecture]
      | {type: "library", version: $version, purl: "pkg:deb/\($system)/\($name)@\($version | @uri)?arch=\($architecture)"} end'
done | jq -s .)

jq --sort-keys --slurp --from-file "$here/sbom.jq" --arg compiler "$(rustc --version | cut -d' ' -f2)" --argjson image "$image" \
  --argjson crates "$crates" --argjson programs "$hashes" --argjson files "$files" \
  "$work"/{party,bench,operator}/*_bin.cdx.json >"$sbom.new"
mv "$sbom.new" "$sbom"
echo "$sbom"

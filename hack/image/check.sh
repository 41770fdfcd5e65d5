#!/usr/bin/env bash
# Checks the image of `make image` and its bill of materials:
#   - it holds the files that are listed here and no other, none of which runs as somebody else
#   - a scanner finds no secret in them, nor do they name a folder of this machine
#   - the system's libraries in it are the newest that the system's packages offer
#   - the bill of materials is valid, and names every file and every direct dependency
# Prints what was checked, and what could not be.
set -euo pipefail
shopt -s inherit_errexit
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
target=${CARGO_TARGET_DIR:-target}
archive=$target/image/secure-inference.tar
sbom=${archive%.tar}.cdx.json
failed= # at all
amiss= # in what is being checked
wrong() { echo "check.sh: $*" >&2; failed=1 amiss=1; }
right() { [ -n "$amiss" ] || echo "$*"; amiss=; }
for made in "$archive" "$sbom"; do
  [ -e "$made" ] || { echo "check.sh: there is no $made; make sbom" >&2; exit 1; }
done
scanner=$(hack/pinned.sh kingfisher)
validator=$(hack/pinned.sh cyclonedx)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
files=$work/files
"$here/unpack.sh" "$archive" "$files"

# One for each file, as the shell matches it.
expected=(
  /etc/{group,nsswitch.conf,passwd}
  '/lib*/*/'{libc.so.6,libgcc_s.so.1,libm.so.6} '/lib*/ld-linux-*.so.?'
  /usr/bin/{bench,operator,party}
  /usr/share/doc/secure-inference/LICENSE
  /usr/share/secure-inference/{models,references}/{a,a-relu,{b,c}{,-relu,-relu-max}}.safetensors
  /usr/share/secure-inference/mnist/t10k-{images-idx3,labels-idx1}-ubyte.gz
)
mapfile -t found < <(cd "$files" && find . ! -type d -printf '/%P\n' | LC_ALL=C sort)
for file in "${found[@]}"; do
  for pattern in "${expected[@]}"; do
    # shellcheck disable=SC2053 # a pattern
    if [[ $file == $pattern ]]; then continue 2; fi
  done
  wrong "$file is in the image; if it belongs there, add it to the list of this script"
done
for pattern in "${expected[@]}"; do
  for file in "${found[@]}"; do
    # shellcheck disable=SC2053
    if [[ $file == $pattern ]]; then continue 2; fi
  done
  wrong "$pattern is missing in the image"
done
odd=$(cd "$files" && find . ! -type d ! -type f -o -type f -perm /7022 -o -type d -perm /6000 -o -type d -perm /0022 ! -path ./tmp)
[ -z "$odd" ] || wrong "expected plain files and folders that only their owner may write, and none that runs as another user: $odd"
right "files: ${#found[@]}, as listed"

# Verification would ask the owners of what is found, over the network.
scan() {
  "$scanner/kingfisher" --no-update-check scan "$1" --no-validate --confidence low --rule-cache-dir "$scanner/../rules" \
    --redact --format json --output "$2" >/dev/null 2>"$2.log"
}
# Without this, a scanner that finds nothing would pass: 48 bytes that are an Ed25519 key, behind a program.
mkdir "$work/planted"
cp "$files/usr/bin/party" "$work/planted"
{
  echo "-----BEGIN PRIVATE KEY-----"
  { printf '\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20'; head -c 32 /dev/urandom; } | base64
  echo "-----END PRIVATE KEY-----"
} >>"$work/planted/party"
if scan "$work/planted" "$work/planted.json"; then wrong "the scanner does not find a private key in a program"; fi
if ! scan "$files" "$work/secrets.json"; then
  wrong "the scanner has found secrets, or failed: $(jq -c '.findings[] | [.rule.id, (.finding.path | sub("^.*/files/"; "/"))]' "$work/secrets.json" || tail "$work/secrets.json.log")"
fi
for folder in "$HOME" "${CARGO_HOME:-$HOME/.cargo}" "$(pwd -P)" "$(realpath -m "$target")"; do
  if [ "$folder" != / ] && named=$(cd "$files" && grep -rlaF -- "${folder%/}/" .); then wrong "these tell where they were built, $folder: ${named//$'\n'/ }"; fi
done
right "secrets and traces of the builder: none; $(jq -rs '.[0].metadata.summary | "\(.blobs_scanned) files, \(.rules_applied) rules"' "$work/secrets.json")"

packages=$(jq -r '.components[].purl // empty | capture("^pkg:deb/[^/]*/(?<name>[^@]*)@(?<version>[^?]*)") | "\(.name) \(.version)"' "$sbom" | sed 's/%2B/+/g' | sort -u)
if [ -z "$packages" ]; then
  echo "check.sh: WHETHER THE IMAGE'S LIBRARIES ARE THE NEWEST WAS NOT CHECKED: they are of no package of this machine" >&2
else
  mkdir -p "$work/lists/partial"
  lists=(-o "Dir::State::Lists=$work/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root)
  if apt-get -qq "${lists[@]}" -o APT::Update::Error-Mode=any update; then
    while read -r name version; do
      newest=$(apt-cache "${lists[@]}" policy "$name" | sed -n 's/^ *Candidate: //p')
      [ "$version" = "$newest" ] || wrong "the image has $name $version; expected the newest, $newest: apt-get install $name, and make image"
    done <<<"$packages"
    right "libraries: the newest there are: $(paste -sd, <<<"$packages")"
  else
    echo "check.sh: WHETHER THE IMAGE'S LIBRARIES ARE THE NEWEST WAS NOT CHECKED: apt-get cannot fetch the lists" >&2
  fi
fi

"$validator/python3" - "$sbom" <<'PYTHON' || wrong "$sbom is not valid (above)"
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

with open(sys.argv[1]) as bill:
    error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(bill.read())
sys.exit(str(error)[:300] if error else 0)
PYTHON
[ "$(jq -r '.metadata.component.hashes[0].content' "$sbom")" = "$(sed 's/^sha256://' "$archive.id")" ] ||
  wrong "$sbom is of another image; make sbom"
listed=$(jq -r '.components[] | select(.name | startswith("/")) | .hashes[0].content + "  ." + .name' "$sbom"
  jq -r '.components[] | select(.type == "application") | .hashes[0].content + "  ./usr/bin/" + .name' "$sbom")
(cd "$files" && sha256sum --check --quiet --strict <<<"$listed") >&2 || wrong "$sbom has other hashes than the image's files"
[ "$(wc -l <<<"$listed")" = ${#found[@]} ] || wrong "$sbom names $(wc -l <<<"$listed") files, the image has ${#found[@]}"
direct=$(cargo metadata --locked --no-deps --format-version 1 | jq -r '.packages[] | select(.name | IN("party", "bench", "operator", "spdz"))
  | .dependencies[] | select(.kind == null and (.optional | not)) | .name' | sort -u)
missing=$(comm -23 <(echo "$direct") <(jq -r '.components[].name' "$sbom" | sort -u))
[ -z "$missing" ] || wrong "$sbom lacks what the manifests name: $missing"
right "bill of materials: valid; $(jq '.components | length' "$sbom") components, $(wc -l <<<"$direct") direct dependencies among them"

[ -z "$failed" ]

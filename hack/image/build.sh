#!/usr/bin/env bash
# Makes the project's image, a docker-archive at $CARGO_TARGET_DIR/image/secure-inference.tar.
#   IMAGE    its name, secure-inference:VERSION without it
#   ENGINE   podman or docker: builds the Containerfile with it; without it the image is packed
#            from a build on this machine, which needs neither an engine nor a registry
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
target=${CARGO_TARGET_DIR:-target}
archive=$target/image/secure-inference.tar
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
revision=$(git describe --always --abbrev=40 --exclude='*' --dirty 2>/dev/null || echo unknown)
image=${IMAGE:-secure-inference:$version}
mkdir -p "$target/image"

# The Containerfile says how the image is run, for both ways.
instruction() { sed -n "s/^$1 //p" Containerfile | tail -1; }
config() {
  local labels
  labels=$(sed -n 's/^LABEL \([^=]*\)=\(".*"\)$/"\1":\2/p' Containerfile |
    sed "s/\$VERSION/$version/; s/\$REVISION/$revision/" | paste -sd,)
  printf '{"User":"%s","WorkingDir":"%s","Entrypoint":%s,"Labels":{%s}}' \
    "$(instruction USER)" "$(instruction WORKDIR)" "$(instruction ENTRYPOINT)" "$labels"
}

case ${ENGINE:-} in
  "")
    root=$("$here/root.sh")
    "$here/pack.sh" "$image" "$root" "$(config)" "$archive.new" >"$archive.id"
    # An archive that stays the same keeps its time.
    if cmp -s "$archive.new" "$archive"; then rm "$archive.new"; else mv "$archive.new" "$archive"; fi
    ;;
  podman | docker)
    # podman completes a name without a registry to localhost/NAME, and nodes look for that then.
    "$ENGINE" build --tag "$image" --file Containerfile --build-arg "VERSION=$version" --build-arg "REVISION=$revision" .
    "$ENGINE" image inspect --format '{{.Id}}' "$image" >"$archive.id"
    rm -f "$archive"
    "$ENGINE" image save --output "$archive" "$image"
    ;;
  *)
    echo "build.sh: ENGINE is $ENGINE; expected podman, docker or nothing" >&2
    exit 2
    ;;
esac
printf '%s: %s, %s bytes in %s\n' "$image" "$(sed 's/^\(sha256:\)\?/sha256:/' "$archive.id")" "$(stat -c %s "$archive")" "$archive"

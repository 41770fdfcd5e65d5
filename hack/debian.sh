#!/usr/bin/env bash
# debian.sh PACKAGE FOLDER: fetches a package of the system's own Debian and unpacks it into
# FOLDER, without installing it, so that no service is started.
set -euo pipefail
[ $# = 2 ] || { echo "usage: debian.sh PACKAGE FOLDER" >&2; exit 2; }
package=$1 folder=$2
cannot() { echo "debian.sh: $*" >&2; exit 1; }
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || cannot "no apt-get to fetch $package"
mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(
  cd "$work"
  # The lists are the machine's own; where it has none they are fetched, to a place of their own.
  apt-get -qq -o APT::Sandbox::User=root download "$package" 2>errors || {
    mkdir -p lists/partial
    lists=(-o "Dir::State::Lists=$work/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root)
    apt-get -qq "${lists[@]}" update 2>>errors && apt-get -qq "${lists[@]}" download "$package" 2>>errors
  }
) || cannot "apt-get cannot fetch $package: $(tail -1 "$work/errors")"
dpkg-deb -x "$work/${package}"_*.deb "$folder"

#!/usr/bin/env bash
# Makes the programs of the test cluster under $ROOT: Kubernetes from Debian's source package,
# etcd, containerd and the rest from its binary packages. Called by cluster.sh, which holds the lock.
#   build.sh install      packages and source: half a minute
#   build.sh build        the programs: six minutes on 2 cores, nothing if they are there
set -euo pipefail
: "${ROOT:?}"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source=$ROOT/src/gopath/src/k8s.io/kubernetes

# Installed: tools without a service of their own.
installed="conntrack dpkg-dev gcc golang-1.19-go iproute2 iptables libc6-dev libseccomp2 mount openssl socat"
# Unpacked below $ROOT: an installed etcd or containerd would be started by systemd, and would
# remove another vendor's.
unpacked="etcd-server containerd runc containernetworking-plugins golang-github-modern-go-reflect2-dev"

install() {
  local missing="" package
  for package in $installed; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
  done
  [ -n "$missing" ] || ! [ -d "$source" ] || ! [ -e "$ROOT/debs/complete" ] || return 0
  # The machine's own mirrors, with sources; its lists and configuration stay as they are.
  mkdir -p "$ROOT/apt/lists/partial" "$ROOT/apt/sources"
  if [ -s /etc/apt/sources.list.d/debian.sources ]; then
    sed 's/^Types:.*/Types: deb deb-src/' /etc/apt/sources.list.d/debian.sources >"$ROOT/apt/sources/debian.sources"
  else
    sed -n 's/^deb \(.*\)/deb \1\ndeb-src \1/p' /etc/apt/sources.list >"$ROOT/apt/sources/debian.list"
  fi
  local apt=(apt-get -q -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::SourceParts=$ROOT/apt/sources"
    -o "Dir::State::Lists=$ROOT/apt/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root)
  "${apt[@]}" update
  # shellcheck disable=SC2086 # a list
  [ -z "$missing" ] || DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y --no-install-recommends $missing
  if ! [ -e "$ROOT/debs/complete" ]; then
    rm -rf "$ROOT/debs"
    mkdir -p "$ROOT/debs"
    (
      cd "$ROOT/debs"
      # shellcheck disable=SC2086 # a list
      "${apt[@]}" download $unpacked
      for package in *.deb; do dpkg-deb -x "$package" .; done
      rm ./*.deb
      touch complete
    )
  fi
  if ! [ -d "$source" ]; then
    mkdir -p "$(dirname "$source")"
    (
      cd "$ROOT/src"
      "${apt[@]}" source --download-only kubernetes
      rm -rf unpacked
      # apt has checked the hashes against the signed lists.
      dpkg-source --no-check -x kubernetes_*.dsc unpacked
      mv unpacked "$source"
    )
  fi
}

build() {
  local stamp
  stamp=$(cat "$here/build.sh" "$here/minidns.go" "$here/pause.c" "$here/../image/pack.sh" | sha256sum)
  [ "$(cat "$ROOT/bin/stamp" 2>/dev/null)" != "$stamp" ] || return 0
  rm -rf "$ROOT/bin.new"
  mkdir -p "$ROOT/bin.new"
  # Not in module mode: this tree of 2021 lacks what go 1.19 wants to see in go.mod.
  export PATH=/usr/lib/go-1.19/bin:$PATH GOPATH=$ROOT/src/gopath GOCACHE=$ROOT/gocache GO111MODULE=off GOFLAGS='' CGO_ENABLED=0
  cd "$source"
  # The vendored reflect2 1.0.1 breaks iteration over maps from Go 1.18 on, and the API server
  # crashes on the first custom resource. Debian's 1.0.2 is mended.
  rm -rf vendor/github.com/modern-go/reflect2
  cp -r "$ROOT/debs/usr/share/gocode/src/github.com/modern-go/reflect2" vendor/github.com/modern-go/
  # The kubelet looks every 10 s whether a deleted pod is gone, which is most of a test's time.
  sed -i 's/syncPeriod = 10 \* time.Second/syncPeriod = 1 * time.Second/' pkg/kubelet/status/status_manager.go
  # Volumes for claims belong to root; whoever runs in a pod may write on them, as on a real one.
  sed -i 's/return pv, \(os.MkdirAll(pv.Spec.HostPath.Path, 0750)\)/_ = \1\n\treturn pv, os.Chmod(pv.Spec.HostPath.Path, 0777)/' \
    pkg/volume/hostpath/host_path.go
  # The one generated file that the source package leaves out.
  if ! [ -s pkg/generated/openapi/zz_generated.openapi.go ]; then
    go build -o "$ROOT/src/openapi-gen" k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen
    local folders
    folders=$(grep -rl --include=*.go -F '+k8s:openapi-gen=' staging/src/k8s.io pkg cmd plugin |
      grep -vE 'staging/src/k8s.io/(code-generator|sample-apiserver)/|_test\.go|zz_generated\.openapi' |
      xargs -n1 dirname | sort -u | sed 's#^staging/src/#vendor/#; s#^#k8s.io/kubernetes/#' | paste -sd,)
    "$ROOT/src/openapi-gen" --logtostderr -i "$folders" -p k8s.io/kubernetes/pkg/generated/openapi \
      -O zz_generated.openapi -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$ROOT/src/openapi-violations"
  fi
  local flags="-s -w" package value
  for package in component-base/version client-go/pkg/version; do
    for value in gitVersion=v1.20.2 gitMajor=1 gitMinor=20 gitTreeState=archive \
      gitCommit=faecb196815e248d3ecfb03c680a4507229c2a56 buildDate=2021-01-13T13:28:09Z; do
      flags="$flags -X k8s.io/kubernetes/vendor/k8s.io/$package.$value"
    done
  done
  mkdir -p cmd/minidns
  cp "$here/minidns.go" cmd/minidns/main.go
  # Upstream's own tags: without the clouds' SDKs and without the Docker shim.
  go build -trimpath -tags 'providerless dockerless' -ldflags "$flags" -o "$ROOT/bin.new/" \
    k8s.io/kubernetes/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kubelet,kube-proxy,minidns}
  mkdir "$ROOT/bin.new/pause"
  gcc -Os -static -s -o "$ROOT/bin.new/pause/pause" "$here/pause.c"
  "$here/../image/pack.sh" localhost/pause:1 "$ROOT/bin.new/pause" '{"Entrypoint":["/pause"]}' "$ROOT/bin.new/pause.tar" >/dev/null
  echo "$stamp" >"$ROOT/bin.new/stamp"
  # Whole or not at all; programs that run keep their files.
  rm -rf "${ROOT:?}/bin"
  mv "$ROOT/bin.new" "$ROOT/bin"
}

"${1:?install or build}"

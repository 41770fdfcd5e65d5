#!/usr/bin/env bash
# A real Kubernetes of one node for tests: etcd, API server, controller manager, scheduler,
# kubelet, kube-proxy, containerd, a bridge network and DNS, with TLS and RBAC. It is made of
# Debian 12 packages alone, runs as processes of this machine and needs neither a registry nor,
# once it is built, a network. Needs root.
#
#   cluster.sh check                         whether this machine can run it; exits 3 with the reasons if not
#   cluster.sh install                       packages and the Kubernetes source: half a minute
#   cluster.sh build                         the programs: six minutes on 2 cores, nothing if they are there
#   cluster.sh up                            the above if need be, then a cluster in about ten seconds
#   cluster.sh load IMAGE.tar                gives a docker-archive to the node
#   cluster.sh restart-apiserver [SECONDS]   ends the API server alone and starts it again, so much later
#   cluster.sh status                        what runs, and how much memory it takes
#   cluster.sh kubeconfig                    prints the path of the administrator's kubeconfig
#   cluster.sh down                          ends everything, forgets its state, puts the machine back as it was
#
# Everything lies under $ROOT, by default ~/.cache/secure-inference/test-cluster. There is one
# test cluster on a machine: its addresses and ports are fixed.
set -euo pipefail
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
umask 022
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=${ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/secure-inference/test-cluster}
export ROOT
bin=$ROOT/bin etc=$ROOT/etc pki=$ROOT/pki run=$ROOT/run state=$ROOT/state logs=$ROOT/logs
kubeconfig=$ROOT/kubeconfig
socket=$run/containerd.sock
machine_lock=/run/lock/secure-inference-test-cluster
node="test"
node_ip=172.30.255.1 # on a bridge of its own, as not every kernel has dummy devices
pod_cidr=10.244.0.0/16 pod_range=10.244.0.0/24 pod_gateway=10.244.0.1
service_cidr=10.96.0.0/16 service_api=10.96.0.1
node_bridge=test-node pod_bridge=test-pods
network=secure-inference-test
programs="etcd containerd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy minidns"
# Off in 1.20 and on since 1.21: the end of finished Jobs, and tokens bound to a pod's life.
gates=TTLAfterFinished=true,BoundServiceAccountTokenVolume=true

say() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }
die() { say "error: $*"; exit 1; }

# ---- which machines can run it

can_mount_overlay() {
  local probe=$ROOT/probe
  mkdir -p "$probe"/{lower,upper,work,merged}
  unshare --mount mount -t overlay overlay \
    -o "lowerdir=$probe/lower,upperdir=$probe/upper,workdir=$probe/work" "$probe/merged" 2>/dev/null
  local code=$?
  rm -rf "$probe"
  return $code
}

reasons_against() {
  local found
  [ "$(uname -m)" = x86_64 ] || echo "the processor is $(uname -m); expected x86_64"
  found=$(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release 2>/dev/null)
  [[ $found == "Debian GNU/Linux 12 "* ]] || echo "the system is ${found:-unknown}; expected Debian 12, whose packages it is made of"
  command -v apt-get >/dev/null || echo "there is no apt-get"
  # Unix sockets have 107 bytes; this is the longest below $ROOT.
  found=$ROOT/state/kubelet/pod-resources/kubelet.sock
  [ ${#found} -le 107 ] || echo "$ROOT is too long a path by $((${#found} - 107)) bytes; set ROOT to a shorter one"
  for found in cpu cpuset memory pids; do
    grep -q "^[^ ]* [^ ]* cgroup [^ ]*,${found}[, ]" /proc/mounts ||
      grep -qw "$found" /sys/fs/cgroup/cgroup.controllers 2>/dev/null ||
      echo "there is no control group hierarchy with $found below /sys/fs/cgroup"
  done
  found=$(awk '/^MemAvailable/ {print int($2 / 1024)}' /proc/meminfo)
  [ "$found" -ge 1500 ] || [ -e "$run/up" ] || echo "there are $found MiB of memory available; expected 1500"
  # The rest can only be tried by root.
  [ "$(id -u)" = 0 ] || { echo "the user is $(id -un); expected root"; return; }
  if ! [ -e "$bin/stamp" ]; then
    found=$(mkdir -p "$ROOT" && df --output=avail -m "$ROOT" | tail -1)
    [ "$found" -ge 3000 ] || echo "there are $((found)) MiB of disk free at $ROOT; expected 3000 to build it"
  fi
  can_mount_overlay || echo "an overlay cannot be mounted at $ROOT (no such file system, or no CAP_SYS_ADMIN); set ROOT to an ordinary disk"
  [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || modprobe -nq br_netfilter || echo "the kernel has no br_netfilter"
  ! command -v ip >/dev/null || unshare --net sh -c 'ip link add name probe0 type bridge && ip link add name probe1 type veth peer name probe2' 2>/dev/null ||
    echo "the kernel has no bridges or no veth devices, or they are not allowed"
  ! command -v iptables >/dev/null || unshare --net iptables -t nat -A POSTROUTING -m comment --comment x -m addrtype --dst-type LOCAL \
    -m statistic --mode random --probability 0.5 -j MASQUERADE 2>/dev/null ||
    echo "the kernel's packet filter lacks address translation or a match that kube-proxy needs"
}

cmd_check() {
  local reasons
  reasons=$(reasons_against)
  [ -n "$reasons" ] || return 0
  printf 'This machine cannot run the test cluster:\n%s\n' "$reasons" >&2
  exit 3
}

# ---- one at a time

# Waits for other commands on this cluster; builds take minutes.
exclusively() {
  mkdir -p "$run"
  exec 8>"$run/lock"
  flock -w 900 8 || die "another command on $ROOT still runs after 15 minutes"
}

# Takes the machine for this cluster; its etcd keeps the lock as long as it lives.
take_machine() {
  exec 9>>"$machine_lock"
  if ! flock -n 9; then
    local holder
    holder=$(cat "$machine_lock")
    die "there is one test cluster on a machine, and one is up in $holder; end it first: ROOT=$holder $0 down"
  fi
  echo "$ROOT" >"$machine_lock"
}

# ---- processes

pid_of() { cat "$run/$1.pid" 2>/dev/null; }
# Also that it is ours: after a reboot the number may be another's.
alive() {
  local pid
  pid=$(pid_of "$1") && [ -n "$pid" ] && grep -qsF "$ROOT/" "/proc/$pid/cmdline"
}
start() { # NAME COMMAND...
  local name=$1
  shift
  alive "$name" && return 0
  (
    exec 8>&-
    [ "$name" = etcd ] || exec 9>&-
    PATH=$ROOT/debs/usr/bin:$ROOT/debs/usr/sbin:$PATH exec setsid "$@" >>"$logs/$name.log" 2>&1 </dev/null
  ) &
  echo $! >"$run/$name.pid"
  disown
  # Until then it is a copy of this script.
  while ! alive "$name" && kill -0 $! 2>/dev/null; do sleep 0.01; done
}
stop() { # NAME [SECONDS]
  local pid i
  if alive "$1"; then
    pid=$(pid_of "$1")
    kill "$pid" 2>/dev/null || true
    for ((i = 0; i < ${2:-10} * 10; i++)); do
      alive "$1" || break
      sleep 0.1
    done
    ! alive "$1" || kill -9 "$pid" 2>/dev/null || true
  fi
  rm -f "$run/$1.pid"
}
wait_for() { # SECONDS WHAT COMMAND...
  local seconds=$1 what=$2 end=$((SECONDS + $1)) name
  shift 2
  until "$@" >/dev/null 2>&1; do
    for name in $programs; do
      [ ! -e "$run/$name.pid" ] || alive "$name" || { tail -n 5 "$logs/$name.log" >&2; die "$name ended; its log is $logs/$name.log"; }
    done
    [ $SECONDS -lt $end ] || die "no $what after $seconds s; the logs are in $logs"
    sleep 0.1
  done
}
find_kubectl() {
  kubectl=$(type -P kubectl) && return 0
  kubectl=$("$here/../kubectl.sh")
  kubectl=$kubectl/kubectl
}
kubectl() { "$kubectl" --kubeconfig="$kubeconfig" --request-timeout=5s "$@"; }
ctr() { "$ROOT/debs/usr/bin/ctr" -a "$socket" -n k8s.io "$@"; }

# ---- certificates and configuration

authority() { # FILE NAME
  [ ! -s "$pki/$1.crt" ] || return 0
  openssl ecparam -genkey -name prime256v1 -noout -out "$pki/$1.key"
  openssl req -x509 -new -key "$pki/$1.key" -days 3650 -subj "/CN=$2" \
    -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature -out "$pki/$1.crt"
}
certificate() { # FILE SUBJECT [ALTERNATIVE NAMES] [AUTHORITY]
  local file=$pki/$1 authority=$pki/${4:-ca}
  [ ! -s "$file.crt" ] || return 0
  openssl ecparam -genkey -name prime256v1 -noout -out "$file.key"
  printf '%s\n' basicConstraints=CA:FALSE keyUsage=digitalSignature extendedKeyUsage=serverAuth,clientAuth \
    ${3:+"subjectAltName=$3"} >"$file.extensions"
  openssl req -new -key "$file.key" -subj "$2" |
    openssl x509 -req -CA "$authority.crt" -CAkey "$authority.key" -CAcreateserial -days 3650 \
      -extfile "$file.extensions" -out "$file.crt" 2>/dev/null
  rm "$file.extensions"
}
write_kubeconfig() { # FILE CERTIFICATE
  (
    umask 077
    cat >"$1" <<E
apiVersion: v1
kind: Config
current-context: test
clusters: [{name: test, cluster: {server: "https://$node_ip:6443", certificate-authority-data: $(base64 -w0 "$pki/ca.crt")}}]
users: [{name: $2, user: {client-certificate-data: $(base64 -w0 "$pki/$2.crt"), client-key-data: $(base64 -w0 "$pki/$2.key")}}]
contexts: [{name: test, context: {cluster: test, user: $2}}]
E
  )
}
write_certificates() {
  mkdir -p "$pki"
  chmod 700 "$pki"
  authority ca kubernetes-ca
  authority front front-proxy-ca
  certificate apiserver /CN=kube-apiserver "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:$service_api,IP:$node_ip,IP:127.0.0.1"
  certificate apiserver-kubelet /O=system:masters/CN=kube-apiserver-kubelet-client
  certificate front-client /CN=front-proxy-client "" front
  certificate kubelet-server "/CN=$node" "DNS:$node,IP:$node_ip,IP:127.0.0.1"
  certificate kubelet "/O=system:nodes/CN=system:node:$node"
  certificate admin /O=system:masters/CN=admin
  certificate dns /CN=test-dns
  local name
  for name in kube-controller-manager kube-scheduler kube-proxy; do certificate $name /CN=system:$name; done
  for name in kubelet dns kube-controller-manager kube-scheduler kube-proxy; do write_kubeconfig "$etc/$name.kubeconfig" $name; done
  write_kubeconfig "$kubeconfig" admin
  [ -s "$pki/sa.pub" ] || {
    openssl genrsa -out "$pki/sa.key" 2048
    openssl rsa -in "$pki/sa.key" -pubout -out "$pki/sa.pub" 2>/dev/null
  }
}
write_configuration() {
  mkdir -p "$etc/cni"
  # Not below this process's own oom_score_adj: containers may lack CAP_SYS_RESOURCE.
  cat >"$etc/containerd.toml" <<E
version = 2
root = "$state/containerd"
state = "$run/containerd"
[grpc]
  address = "$socket"
[plugins."io.containerd.internal.v1.opt"]
  path = "$state/containerd-opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$ROOT/debs/usr/lib/cni"
    conf_dir = "$etc/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "$run/runc"
E
  cat >"$etc/cni/bridge.conflist" <<E
{"cniVersion": "0.4.0", "name": "$network", "plugins": [
  {"type": "bridge", "bridge": "$pod_bridge", "mtu": 65520, "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$state/cni", "ranges": [[{"subnet": "$pod_range"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
E
  : >"$etc/resolv.conf" # pods ask the cluster's DNS alone
  # Images are never collected: they cannot be pulled again. What the kubelet may ask of the API
  # server is what it may from 1.27 on: five requests a second are less than the news of one run.
  cat >"$etc/kubelet.yaml" <<E
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $node_ip
healthzBindAddress: 127.0.0.1
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $pki/kubelet-server.crt
tlsPrivateKeyFile: $pki/kubelet-server.key
cgroupDriver: cgroupfs
failSwapOn: false
clusterDomain: cluster.local
clusterDNS: ["$node_ip"]
resolvConf: $etc/resolv.conf
oomScoreAdj: 0
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
volumePluginDir: $state/volume-plugins
syncFrequency: 10s
nodeStatusUpdateFrequency: 5s
serializeImagePulls: false
maxPods: 200
kubeAPIQPS: 50
kubeAPIBurst: 100
eventRecordQPS: 50
eventBurst: 100
E
  cat >"$etc/kube-proxy.yaml" <<E
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clusterCIDR: $pod_cidr
hostnameOverride: $node
clientConnection: {kubeconfig: $etc/kube-proxy.kubeconfig}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
oomScoreAdj: 0
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
iptables: {syncPeriod: 30s, minSyncPeriod: 200ms}
nodePortAddresses: ["127.0.0.0/8", "$node_ip/32"]
E
}

# ---- the node's network

# Kernel settings that are changed here, by the kubelet and by kube-proxy.
settings="net/ipv4/ip_forward net/bridge/bridge-nf-call-iptables net/ipv4/conf/all/route_localnet vm/overcommit_memory
  vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes"
network_up() {
  local setting uplink
  [ -e /proc/sys/net/bridge ] || modprobe br_netfilter
  for setting in $settings; do echo "$setting $(cat "/proc/sys/$setting")"; done >"$run/settings"
  echo 1 >/proc/sys/net/ipv4/ip_forward
  echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
  ip link add name $node_bridge type bridge
  ip address add $node_ip/32 dev $node_bridge
  ip link set $node_bridge up
  ip link add name $pod_bridge type bridge
  ip address add $pod_gateway/24 dev $pod_bridge
  ip link set $pod_bridge up
  # Addresses of Services and pods that are not there end here, never on the uplink.
  ip route add $service_cidr dev $node_bridge src $node_ip
  ip route add $pod_cidr dev $node_bridge src $node_ip
  iptables -w -I FORWARD -i $pod_bridge -o $pod_bridge -m comment --comment $network -j ACCEPT
  # A pod that reaches out is told so at once.
  uplink=$(ip -4 route show default | sed -n 's/.* dev \([^ ]*\).*/\1/p' | head -1)
  [ -z "$uplink" ] || iptables -w -I FORWARD -i $pod_bridge -o "$uplink" -m comment --comment $network -j REJECT
}
network_down() {
  local command table setting value
  # Only what was named by kube-proxy, the kubelet, the network plugins, and here.
  for command in iptables ip6tables; do
    for table in nat filter mangle; do
      if $command-save -t $table 2>/dev/null | grep -E "KUBE-|CNI-|$network" >/dev/null; then
        $command-save -t $table | grep -vE "KUBE-|CNI-|$network" | $command-restore -w -T $table
      fi
    done
  done
  ip link del $pod_bridge 2>/dev/null || true
  ip link del $node_bridge 2>/dev/null || true
  if [ -e "$run/settings" ]; then
    while read -r setting value; do echo "$value" >"/proc/sys/$setting"; done <"$run/settings"
    rm "$run/settings"
  fi
}

# ---- commands

cmd_install() { cmd_check; exclusively; "$here/build.sh" install; }
cmd_build() { cmd_install; nice "$here/build.sh" build; }

# Left to itself it waits a minute for watches to end.
stop_apiserver() { stop kube-apiserver 1; }
start_apiserver() {
  start kube-apiserver "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
    --bind-address=$node_ip --advertise-address=$node_ip --secure-port=6443 \
    --service-cluster-ip-range=$service_cidr --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
    --client-ca-file="$pki/ca.crt" --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
    --kubelet-client-certificate="$pki/apiserver-kubelet.crt" --kubelet-client-key="$pki/apiserver-kubelet.key" \
    --kubelet-certificate-authority="$pki/ca.crt" --kubelet-preferred-address-types=InternalIP \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file="$pki/sa.pub" --service-account-signing-key-file="$pki/sa.key" \
    --requestheader-client-ca-file="$pki/front.crt" --requestheader-allowed-names=front-proxy-client \
    --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
    --requestheader-extra-headers-prefix=X-Remote-Extra- \
    --proxy-client-cert-file="$pki/front-client.crt" --proxy-client-key-file="$pki/front-client.key" \
    --allow-privileged=true --feature-gates=$gates
  wait_for 60 "ready API server" kubectl get --raw=/readyz
}

start_all() {
  # What it stores is thrown away. To wait until it is on a disk that a build has just filled
  # would hold up the whole cluster, at times for a quarter of a minute.
  start etcd "$ROOT/debs/usr/bin/etcd" --name test --data-dir "$state/etcd" --logger zap --unsafe-no-fsync \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster test=http://127.0.0.1:2380
  start containerd "$ROOT/debs/usr/bin/containerd" -c "$etc/containerd.toml"
  wait_for 20 "containerd" ctr version
  ctr images import "$bin/pause.tar" >/dev/null
  start_apiserver
  start kube-controller-manager "$bin/kube-controller-manager" --kubeconfig="$etc/kube-controller-manager.kubeconfig" \
    --authentication-kubeconfig="$etc/kube-controller-manager.kubeconfig" \
    --authorization-kubeconfig="$etc/kube-controller-manager.kubeconfig" \
    --bind-address=127.0.0.1 --leader-elect=false --use-service-account-credentials=true \
    --root-ca-file="$pki/ca.crt" --service-account-private-key-file="$pki/sa.key" \
    --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
    --requestheader-client-ca-file="$pki/front.crt" \
    --flex-volume-plugin-dir="$state/volume-plugins" --enable-hostpath-provisioner=true --node-monitor-period=2s --feature-gates=$gates
  start kube-scheduler "$bin/kube-scheduler" --kubeconfig="$etc/kube-scheduler.kubeconfig" \
    --authentication-kubeconfig="$etc/kube-scheduler.kubeconfig" \
    --authorization-kubeconfig="$etc/kube-scheduler.kubeconfig" --bind-address=127.0.0.1 --leader-elect=false
  start kubelet "$bin/kubelet" --config="$etc/kubelet.yaml" --kubeconfig="$etc/kubelet.kubeconfig" \
    --hostname-override=$node --node-ip=$node_ip --root-dir="$state/kubelet" --cert-dir="$state/kubelet/pki" \
    --container-runtime=remote --container-runtime-endpoint="unix://$socket" --image-service-endpoint="unix://$socket" \
    --pod-infra-container-image=localhost/pause:1
  start kube-proxy "$bin/kube-proxy" --config="$etc/kube-proxy.yaml"
  # Claims get volumes from the controller manager's own provisioner for tests.
  kubectl apply -f - >/dev/null <<E
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: test-dns}
rules: [{apiGroups: [""], resources: [services, endpoints], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: test-dns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: test-dns}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: test-dns}]
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: hostpath, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: kubernetes.io/host-path
E
  start minidns "$bin/minidns" --kubeconfig "$etc/dns.kubeconfig" --listen $node_ip:53
  wait_for 60 "node" kubectl get node $node
  wait_for 60 "ready node" kubectl wait --for=condition=Ready node/$node --timeout=1s
  wait_for 60 "default service account" kubectl get serviceaccount default
  wait_for 30 "rules of kube-proxy" sh -c "iptables-save -t nat | grep -q 'KUBE-SERVICES.*$service_api'"
}

cmd_up() {
  local began=$SECONDS
  cmd_build
  find_kubectl
  if alive etcd; then
    start_all # what has ended since, if anything
  else
    take_machine
    [ ! -e "$run/up" ] || teardown # what a crash or a reboot left
    ! iptables-save -t nat 2>/dev/null | grep KUBE-SERVICES >/dev/null || die "another Kubernetes runs on this machine; this one would take its addresses"
    # Half a cluster is of no use; the reason is in the logs, which stay.
    trap 'trap "" INT TERM; say "putting everything back"; teardown' EXIT
    trap 'exit 130' INT TERM
    touch "$run/up"
    rm -rf "$logs"
    mkdir -p "$etc" "$logs" "$state"/{etcd,kubelet,volume-plugins,cni}
    chmod 700 "$state/etcd"
    write_certificates
    write_configuration
    network_up
    start_all
    trap - EXIT INT TERM
  fi
  say "up in $((SECONDS - began)) s: export KUBECONFIG=$kubeconfig"
}

# Everything but the programs, the certificates and the logs, in whatever state it is.
teardown() {
  local file pid name
  for name in kube-proxy minidns kubelet kube-controller-manager kube-scheduler; do stop $name; done
  # The pods' processes, whether containerd still knows of them or not.
  find /sys/fs/cgroup -path '*/kubepods/*' -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u |
    while read -r pid; do kill -9 "$pid" 2>/dev/null || true; done
  stop containerd
  # Their shims, which name our socket.
  for file in /proc/[0-9]*/cmdline; do
    pid=${file#/proc/} pid=${pid%/cmdline}
    case $({ tr "\0" " " <"$file"; } 2>/dev/null) in
      *containerd-shim-runc-v2*" -address $socket "*) kill -9 "$pid" 2>/dev/null || true ;;
    esac
  done
  for file in "$run"/containerd/io.containerd.runtime.v2.task/k8s.io/*/address; do
    [ ! -e "$file" ] || rm -f "$(sed 's#^unix://##' "$file")"
  done
  stop_apiserver
  stop etcd
  { awk -v state="$state/" -v run="$run/" 'index($2, state) == 1 || index($2, run) == 1 {print $2}' /proc/mounts | sort -r
    ls -d /run/netns/cni-* 2>/dev/null || true; } | while read -r name; do umount -l "$name" 2>/dev/null || true; done
  rm -f /run/netns/cni-*
  network_down
  find /sys/fs/cgroup -depth -type d \( -name kubepods -o -path '*/kubepods/*' \) -exec rmdir {} + || true
  rm -rf "$state" "$run"/{containerd,runc} "$socket"*
  # These programs cannot be told other places.
  rm -rf /var/lib/cni/results/{$network,cni-loopback}-* /var/lib/kubelet/device-plugins /var/log/{pods,containers} /tmp/hostpath_pv
  rmdir /var/lib/cni/results /var/lib/cni /var/lib/kubelet /run/containerd/s /run/containerd /run/netns 2>/dev/null || true
  rm -f "$run/up"
}

cmd_down() {
  exclusively
  [ -e "$run/up" ] || { say "nothing is up in $ROOT"; return; }
  alive etcd || take_machine
  teardown
  say down
}

cmd_load() {
  [ -r "${1:-}" ] || die "expected the path of an image, a docker-archive"
  alive containerd || die "the cluster is not up; start it: $0 up"
  ctr images import "$1"
}

cmd_restart_apiserver() {
  local seconds=${1:-0}
  [[ $seconds =~ ^[0-9]{1,3}$ ]] || die "expected how many seconds the API server is away, at most 999, found $seconds"
  exclusively
  alive etcd || die "the cluster is not up; start it: $0 up"
  find_kubectl
  # Whoever interrupts this finds it as it was.
  trap start_apiserver EXIT
  trap 'exit 130' INT TERM
  stop_apiserver
  sleep "$seconds"
  trap - EXIT INT TERM
  start_apiserver
}

cmd_status() {
  local name pid
  for name in $programs; do
    if alive "$name"; then
      pid=$(pid_of "$name")
      awk -v name="$name" -v pid="$pid" '/^VmRSS/ {printf "%-24s pid %-7s %4d MiB\n", name, pid, $2 / 1024}' "/proc/$pid/status"
    else
      printf '%-24s not running\n' "$name"
    fi
  done
}

cmd_kubeconfig() { echo "$kubeconfig"; }

case "${1:-}" in
  check | install | build | up | load | restart-apiserver | status | kubeconfig | down)
    command=cmd_${1//-/_}
    shift
    "$command" "$@"
    ;;
  *)
    sed -n '2,/^set/s/^# \?//p' "$0"
    exit 2
    ;;
esac

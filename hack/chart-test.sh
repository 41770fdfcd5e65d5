#!/usr/bin/env bash
# Tests the Helm chart.
#   chart-test.sh render     lint, the README, values that are refused, what is rendered; needs no cluster
#   chart-test.sh accept     the API server of KUBECONFIG takes every object of every scenario; nothing stays
#   chart-test.sh definition the definition's life with releases that install it; needs a cluster without one
#   chart-test.sh release    install, upgrade, a failed upgrade, rollback and uninstall, while parties work
#   chart-test.sh            all of them
# A scenario is a file of charts/secure-inference/ci; its first lines say what it renders and what not.
# `release` needs the image secure-inference:VERSION on the node, and no operator that watches all
# namespaces. It works in the namespaces chart-test-operator and chart-test-jobs, and deletes them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$(hack/kubectl.sh):$PATH
chart=charts/secure-inference
operators=chart-test-operator jobs=chart-test-jobs
definition=crd/secureinferences.secureinference.dev
work=$(mktemp -d)
taken="" # what to put away at the end
releasing=false

say() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }
die() { say "error: $*"; exit 1; }
# Says what was expected of text that is too long to print.
expect() { # WHAT CONDITION...
  local what=$1
  shift
  "$@" || die "expected $what"
}
eventually() { # SECONDS WHAT CONDITION...
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    [ $SECONDS -lt $deadline ] || die "expected $what, waited long enough"
    sleep 1
  done
}

# ---- without a cluster

render() { # VALUES [OPTION...]
  local values=$1
  shift
  helm template test $chart --namespace $operators --values "$values" "$@"
}

check_scenario() { # VALUES
  local rendered=$work/rendered.yaml line
  render "$1" >"$rendered"
  while IFS= read -r line; do
    case $line in
      "# renders: "*) expect "$1 to render ${line#*: }" grep -qF -e "${line#*: }" "$rendered" ;;
      "# lacks: "*) expect "$1 not to render ${line#*: }" not grep -qF -e "${line#*: }" "$rendered" ;;
    esac
  done <"$1"
}
not() { ! "$@"; }

# A value that cannot be right is refused by its name.
refused() { # EXPECTED OPTION...
  local expected=$1 said
  shift
  if said=$(helm template test $chart "$@" 2>&1 >/dev/null); then die "expected helm to refuse $*"; fi
  [[ $said == *"$expected"* ]] || die "refused $*: expected a message with «$expected», found: $said"
}

check_refusals() {
  refused "additional properties 'replica' not allowed" --set replica=2
  refused "at '/image': additional properties 'name' not allowed" --set image.name=x
  refused "at '/replicas': minimum: got 0, want 1" --set replicas=0
  refused "at '/replicas': got string, want integer" --set replicas=many
  refused "at '/image/digest'" --set image.digest=0123
  refused "at '/partyImage'" --set "partyImage=two words"
  refused "at '/watchNamespace'" --set watchNamespace=Upper
  refused "at '/logLevel': 'loud' does not match" --set logLevel=loud
  refused "at '/imagePullSecrets/0': missing property 'name'" --set 'imagePullSecrets[0].key=x'
  refused "at '/tolerations/0/effect': value must be one of" --set 'tolerations[0].effect=Never'
  refused "at '/affinity': additional properties 'nodeAfinity' not allowed" --set affinity.nodeAfinity.x=1
  refused "at '/resources/requests/cpu'" --set resources.requests.cpu=plenty
  refused "at '/podLabels/on': got boolean, want string" --set podLabels.on=true
  refused "at '/metrics/podMonitor/interval'" --set metrics.podMonitor.interval=5
  refused "at '/podDisruptionBudget/maxUnavailable'" --set podDisruptionBudget.maxUnavailable=half
  refused "serviceAccount.name must say which account to use" --set serviceAccount.create=false
  refused "the API server has no monitoring.coreos.com/v1/ServiceMonitor" --set metrics.serviceMonitor.enabled=true
  refused "the API server has no monitoring.coreos.com/v1/PodMonitor" --set metrics.podMonitor.enabled=true
  refused "the API server has no monitoring.coreos.com/v1/PrometheusRule" --set metrics.prometheusRule.enabled=true
  refused "at '/metrics/prometheusRule/runbooks'" --set metrics.prometheusRule.runbooks=docs
  refused "invalid propertyName 'a-b'" --set metrics.prometheusRule.alertLabels.a-b=c
  refused "at '/dashboards': additional properties 'label' not allowed" --set dashboards.label=x
  refused "at '/telemetry/otlpEndpoint'" --set telemetry.otlpEndpoint=tempo:4317
  refused "at '/benchmark/schedule'" --set benchmark.schedule=sometimes
  refused "at '/benchmark/networks/0': value must be one of" --set 'benchmark.networks={D}'
  refused "at '/benchmark/batchSizes': minItems: got 0, want 1" --set-json 'benchmark.batchSizes=[]'
  refused "at '/benchmark/storage': additional properties 'configMap' not allowed" --set benchmark.storage.configMap=x
  refused "chart requires kubeVersion: >=1.20.0-0" --kube-version 1.19.0
}

# What depends on the API server's version.
check_versions() {
  local version rules budget fields found rendered=$work/rendered.yaml
  while read -r version rules budget fields; do
    render $chart/ci/replicas-values.yaml --kube-version "$version" >"$rendered"
    found=no
    ! grep -q x-kubernetes-validations: "$rendered" || found=some
    expect "$rules CEL rules for $version, found $found" [ $found = "$rules" ]
    expect "$budget for $version" grep -qx "apiVersion: $budget" "$rendered"
    found=$(grep -cE '^ *- jsonPath: [.](status[.](phase|network)|spec[.]numberFormat)$' "$rendered" || true)
    expect "$fields fields to select by for $version, found $found" [ "$found" = "$fields" ]
  done <<'V'
1.20.0 no policy/v1beta1 0
1.21.0 no policy/v1 0
1.24.17-eks-0123456 no policy/v1 0
1.25.0-gke.1 some policy/v1 0
1.31.0 some policy/v1 3
1.35.0 some policy/v1 3
V
}

# A chart that depends on this one: Helm gives it values of its own.
check_as_dependency() {
  local parent=$work/parent
  mkdir -p "$parent/charts"
  cp -r $chart "$parent/charts"
  cat >"$parent/Chart.yaml" <<'C'
apiVersion: v2
name: parent
version: 0.1.0
dependencies: [{name: secure-inference, version: ">=0.0.0-0", condition: secure-inference.enabled}]
C
  echo 'global: {region: x}' >"$parent/values.yaml"
  helm template test "$parent" --set secure-inference.enabled=true >"$work/rendered.yaml"
  expect "a dependency to be rendered" grep -q 'kind: Deployment' "$work/rendered.yaml"
}

test_render() {
  local values
  hack/chart-readme.sh --check
  for values in "$chart"/ci/*-values.yaml; do
    helm lint --strict --quiet $chart --values "$values" >&2
    check_scenario "$values"
  done
  check_refusals
  check_versions
  check_as_dependency
  say "the chart renders what it should, and refuses what it should"
}

# ---- with a cluster

server_version() { kubectl get --raw /version | jq -r .gitVersion; }

use_namespaces() {
  local namespace
  [[ $taken != *$operators* ]] || return 0
  for namespace in $operators $jobs; do
    expect "no namespace $namespace: another run of this test, or one that was ended; delete it" \
      kubectl create namespace "$namespace" >/dev/null
    taken="$taken $namespace"
  done
}

# Objects as lines of JSON.
objects() { kubectl create --dry-run=client --validate=false -o json -f - | jq -cS "$1" | sort; }

# One in each pair would be forgotten when the other changes.
check_like_manifests() {
  local what=$1 query=$2 manifest=$3
  render $chart/ci/default-values.yaml --show-only "templates/$manifest" | objects "$query" >"$work/chart"
  objects "$query" <"manifests/operator/$manifest" >"$work/manifests"
  expect "$what in manifests/operator/$manifest" [ -s "$work/manifests" ]
  diff -u "$work/manifests" "$work/chart" >&2 || die "expected $what of the chart to be those of manifests/operator/$manifest"
}

test_accept() {
  local values version options
  version=$(server_version)
  use_namespaces
  for values in "$chart"/ci/*-values.yaml; do
    options=(--kube-version "$version")
    kubectl get --raw /apis/monitoring.coreos.com/v1 >/dev/null 2>&1 ||
      options+=(--set metrics.serviceMonitor.enabled=false,metrics.podMonitor.enabled=false,metrics.prometheusRule.enabled=false)
    render "$values" "${options[@]}" >"$work/rendered.yaml"
    # Whoever keeps a definition of the cluster keeps it.
    kubectl apply --dry-run=server --filename "$work/rendered.yaml" >"$work/taken" 2>"$work/errors" ||
      die "the API server $version refuses $values: $(cat "$work/errors")"
    say "$values: $(wc -l <"$work/taken") objects taken by the API server $version"
  done
  check_like_manifests "the permissions" '
    select(.kind == "ClusterRole" or .kind == "Role") | {kind, rules}' rbac.yaml
  check_like_manifests "the policy" '
    select(.kind == "NetworkPolicy").spec | .podSelector.matchLabels |= del(."app.kubernetes.io/instance")' networkpolicy.yaml
  check_like_manifests "the container's settings" '
    select(.kind == "Deployment").spec.template.spec
    | {securityContext, terminationGracePeriodSeconds}
      + (.containers[0] | {command, ports, readinessProbe, livenessProbe, resources, hardening: .securityContext})
    ' deployment.yaml
}

# ---- releases

helm_() { helm "$1" test "${@:2}" --namespace $operators >"$work/helm" 2>&1; }
deployment() { kubectl -n $operators get deployment secure-inference-operator -o "jsonpath=$1"; }
uid() { kubectl get "$@" -o 'jsonpath={.metadata.uid}'; }
# Name, identity and restarts of the pods of a job.
parties() {
  kubectl -n $jobs get pods -l "secureinference.dev/job=$1" -o json |
    jq -c '[.items[] | {name: .metadata.name, uid: .metadata.uid, phase: .status.phase,
      restarts: [.status.containerStatuses[]?.restartCount]}]'
}
leader() { kubectl -n $operators get lease secure-inference-operator -o 'jsonpath={.spec.holderIdentity}'; }
# The Lease's holder is a pod of the Deployment as it is now.
led_by_current() {
  local hash
  hash=$(kubectl -n $operators get replicaset -l app.kubernetes.io/component=operator -o json |
    jq -r --arg revision "$(deployment '{.metadata.annotations.deployment\.kubernetes\.io/revision}')" \
      '.items[] | select(.metadata.annotations["deployment.kubernetes.io/revision"] == $revision) | .metadata.labels["pod-template-hash"]')
  [[ $(leader) == secure-inference-operator-$hash-* ]]
}
phase_is() { [ "$(kubectl -n $jobs get secureinference "$1" -o 'jsonpath={.status.phase}')" = "$2" ]; }

# Two operators would work on one resource.
check_alone() {
  local others
  others=$(kubectl get deployments -A -l app.kubernetes.io/component=operator,app.kubernetes.io/name=secure-inference -o json |
    jq -r '.items[] | select(.spec.replicas > 0 and (.spec.template.spec.containers[0].args | any(startswith("--namespace=")) | not))
      | "\(.metadata.namespace)/\(.metadata.name)"')
  [ -z "$others" ] || die "expected no operator that watches all namespaces, found $others; end it first"
}

start_job() { # NAME SPEC
  kubectl -n $jobs create -f - >/dev/null <<J
apiVersion: secureinference.dev/v1alpha1
kind: SecureInference
metadata: {name: $1}
spec: $2
J
}

# The parties of the long job are those that began: none went, came or was restarted.
untouched() {
  local now
  now=$(parties long)
  [ "$now" = "$began" ] || die "$1 touched the parties: expected $began, found $now"
  expect "the first attempt after $1" [ "$(kubectl -n $jobs get secureinference long -o 'jsonpath={.status.attempt} {.status.phase}')" = "1 Running" ]
  say "$1: the parties work on"
}

definition_is_kept() {
  [ "$(uid $definition)" = "$defined" ] || die "$1 made the definition anew; its resources are gone"
}

# There is no chart of an earlier version yet, so the previous one is this one with a lower version.
package() { # VERSION
  helm package $chart --version "$1" --destination "$work" >/dev/null
  echo "$work/secure-inference-$1.tgz"
}

prepare() {
  use_namespaces
  previous=$(package 0.0.1)
  current=$(package "$(sed -n 's/^version: //p' $chart/Chart.yaml)")
}

from_release() { kubectl get $definition -o "jsonpath={.metadata.annotations.meta\.helm\.sh/$1}"; }

test_definition() {
  local previous current defined resource common
  if kubectl get $definition >/dev/null 2>&1; then
    say "the cluster has a definition of somebody else's: it is left alone, and the chart's is not tested"
    return
  fi
  prepare
  taken="$taken $definition"
  common=(--set "watchNamespace=$jobs")
  helm_ install "$previous" "${common[@]}" --set labels.generation=first || die "cannot install: $(cat "$work/helm")"
  kubectl wait --for=condition=Established $definition --timeout=30s >/dev/null
  defined=$(uid $definition)
  start_job idle '{model: {builtin: A}, suspend: true}'
  resource=$(uid -n $jobs secureinference/idle)
  helm_ upgrade "$current" "${common[@]}" --set labels.generation=second || die "cannot upgrade: $(cat "$work/helm")"
  expect "the definition of the new version" [ "$(kubectl get $definition -o 'jsonpath={.metadata.labels.generation}')" = second ]
  definition_is_kept "the upgrade"
  helm_ rollback 1 || die "cannot roll back: $(cat "$work/helm")"
  expect "the definition of the old version" [ "$(kubectl get $definition -o 'jsonpath={.metadata.labels.generation}')" = first ]
  definition_is_kept "the rollback"
  helm_ upgrade "$current" "${common[@]}" --set crds.install=false || die "cannot upgrade: $(cat "$work/helm")"
  definition_is_kept "crds.install=false"
  helm_ upgrade "$current" "${common[@]}" || die "cannot upgrade: $(cat "$work/helm")"
  definition_is_kept "crds.install=true"
  helm_ uninstall || die "cannot uninstall: $(cat "$work/helm")"
  definition_is_kept "uninstalling"
  # Another release does not get it by accident.
  if helm install other "$current" --namespace $jobs "${common[@]}" >"$work/helm" 2>&1; then
    die "expected Helm to refuse the definition of another release"
  fi
  expect "the reason of the refusal, found $(cat "$work/helm")" grep -q 'release-name" must equal "other"' "$work/helm"
  # Somebody changed it by other means as well.
  kubectl patch $definition --type merge --patch '{"spec": {"names": {"shortNames": ["si", "inference"]}}}' >/dev/null
  helm upgrade --install other "$current" --namespace $jobs "${common[@]}" --take-ownership --force-conflicts >"$work/helm" 2>&1 ||
    die "cannot take the definition over: $(cat "$work/helm")"
  expect "the chart's definition" [ "$(kubectl get $definition -o 'jsonpath={.spec.names.shortNames}')" = '["si"]' ]
  expect "the other release to own it" [ "$(from_release release-name)" = other ]
  definition_is_kept "the other release"
  helm uninstall other --namespace $jobs >"$work/helm" 2>&1 || die "cannot uninstall: $(cat "$work/helm")"
  definition_is_kept "uninstalling the other release"
  expect "the resource that was made first" [ "$(uid -n $jobs secureinference/idle)" = "$resource" ]
  kubectl -n $jobs delete secureinference idle >/dev/null
  say "the definition is upgraded, rolled back, taken over and kept"
}

test_release() {
  local previous current began defined own_definition=true common
  check_alone
  prepare
  releasing=true
  common=(--set "watchNamespace=$jobs" --wait --timeout 120s)
  if [[ $taken == *$definition* ]]; then
    common+=(--take-ownership)
  elif kubectl get $definition >/dev/null 2>&1; then
    own_definition=false
    common+=(--set crds.install=false)
  else
    taken="$taken $definition"
  fi

  helm_ install "$previous" "${common[@]}" || die "cannot install: $(cat "$work/helm")"
  kubectl wait --for=condition=Established $definition --timeout=30s >/dev/null
  defined=$(uid $definition)
  eventually 30 "a leader" led_by_current
  say "installed version 0.0.1, which stands for the previous one"
  helm install second "$current" --namespace $operators --set crds.install=false >"$work/helm" 2>&1 &&
    die "expected Helm to refuse a second release in the namespace"
  expect "the reason of the refusal, found $(cat "$work/helm")" grep -q "cannot be imported into the current release" "$work/helm"

  # Too little processor to end while the test runs.
  start_job long '{model: {builtin: A}, workload: {repetitions: 100000, accuracySamples: 0}, parties: {resources: {limits: {cpu: 100m}}}}'
  eventually 120 "the long job to run" phase_is long Running
  began=$(parties long)

  helm_ upgrade "$current" "${common[@]}" --set replicas=2 --set logLevel=debug --set labels.generation=second ||
    die "cannot upgrade: $(cat "$work/helm")"
  untouched "the upgrade"
  definition_is_kept "the upgrade"
  expect "two replicas" [ "$(deployment '{.status.readyReplicas}')" = 2 ]
  expect "a budget for disruptions" [ -n "$(kubectl -n $operators get poddisruptionbudgets -o name)" ]
  eventually 30 "a leader of the new version" led_by_current
  expect "the operator to log as it was told" kubectl -n $operators logs "$(leader)" >"$work/log"
  expect "lines of the level debug" grep -q '"level":"DEBUG"' "$work/log"
  if $own_definition; then
    expect "the definition of the new version" [ "$(kubectl get $definition -o 'jsonpath={.metadata.labels.generation}')" = second ]
  fi

  # The old pods stay until new ones are ready, so the operator works on all the same.
  if helm_ upgrade "$current" --set "watchNamespace=$jobs" --set crds.install=$own_definition --set replicas=2 \
    --set image.tag=missing --set image.pullPolicy=Never --wait --timeout 15s; then
    die "expected the upgrade to an image that is nowhere to fail"
  fi
  expect "ready replicas after a failed upgrade" [ "$(deployment '{.status.readyReplicas}')" -ge 1 ]
  untouched "a failed upgrade"

  helm_ rollback 1 --wait --timeout 120s || die "cannot roll back: $(cat "$work/helm")"
  untouched "the rollback"
  definition_is_kept "the rollback"
  expect "one replica" [ "$(deployment '{.spec.replicas} {.status.readyReplicas}')" = "1 1" ]
  expect "no budget for disruptions" [ -z "$(kubectl -n $operators get poddisruptionbudgets -o name)" ]
  eventually 30 "a leader of the old version" led_by_current

  # Ends while there is no operator.
  start_job short '{model: {builtin: A}, workload: {repetitions: 20000, accuracySamples: 100}}'
  eventually 120 "the short job to run" phase_is short Running
  helm_ uninstall --wait --timeout 60s || die "cannot uninstall: $(cat "$work/helm")"
  untouched "uninstalling"
  definition_is_kept "uninstalling"
  eventually 60 "nothing but the definition to be left" nothing_left
  eventually 300 "the short job's client to end without an operator" client_ended
  phase_is short Running || die "expected nobody to have noticed that the short job ended"

  helm_ install "$current" "${common[@]}" || die "cannot install again: $(cat "$work/helm")"
  definition_is_kept "installing again"
  eventually 60 "the short job's result to be read" phase_is short Succeeded
  expect "its first attempt to have succeeded" [ "$(kubectl -n $jobs get secureinference short -o 'jsonpath={.status.attempt}')" = 1 ]
  untouched "installing again"

  helm_ upgrade "$current" "${common[@]}" --set crds.install=false || die "cannot upgrade: $(cat "$work/helm")"
  definition_is_kept "crds.install=false"
  untouched "crds.install=false"
  kubectl -n $jobs delete secureinferences --all --timeout 60s >/dev/null
  helm_ uninstall --wait --timeout 60s || die "cannot uninstall: $(cat "$work/helm")"
  definition_is_kept "uninstalling"
  say "install, upgrade, rollback and uninstall leave runs and the definition alone"
}
nothing_left() {
  local left
  left=$(kubectl -n $operators get all,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets -o name &&
    kubectl -n $jobs get roles,rolebindings -o name) || return 1
  [[ $left != *secure-inference* ]]
}
client_ended() { [ "$(parties short | jq -r '.[] | select(.name | endswith("-client")).phase')" = Succeeded ]; }

clean_up() {
  local code=$? object
  trap - EXIT
  set +e # each of these is tried, whatever became of the others
  if [ $code != 0 ] && $releasing; then
    kubectl -n $operators get pods -o wide >&2
    kubectl -n $operators logs -l app.kubernetes.io/component=operator --tail=20 >&2
    kubectl -n $jobs get secureinferences,pods >&2
  fi
  # With an operator still there, resources would be run again while their pods are deleted.
  [[ $taken != *$operators* ]] || helm_ uninstall --ignore-not-found || cat "$work/helm" >&2
  for object in $taken; do
    case $object in
      crd/*)
        # Not from under others who use it by now.
        if [ -z "$(kubectl get secureinferences -A -o name 2>/dev/null)" ] &&
          ! kubectl get "$object" -o 'jsonpath={.metadata.annotations}' 2>/dev/null | grep -q last-applied-configuration; then
          kubectl delete "$object" --ignore-not-found >/dev/null
        fi
        ;;
      *) kubectl delete namespace "$object" --wait=false >/dev/null ;;
    esac
  done
  rm -rf "$work"
  exit $code
}
trap clean_up EXIT
command -v jq >/dev/null || die "expected jq in PATH; install it"
# The cluster that kubectl knows by default may be one that people work with.
[ "${1:-all}" = render ] || [ -n "${KUBECONFIG:-}" ] || die "expected KUBECONFIG to name a cluster for tests"
case ${1:-all} in
  render) test_render ;;
  accept) test_accept ;;
  definition) test_definition ;;
  release) test_release ;;
  all)
    test_render
    test_accept
    test_definition
    test_release
    ;;
  *) die "expected render, accept, definition, release or nothing, found $1" ;;
esac

{{/* Names do not depend on the release's: the Lease is one for a namespace, so is the operator. */}}
{{- define "secure-inference.name" -}}
secure-inference-operator
{{- end }}

{{- define "secure-inference.selector" -}}
app.kubernetes.io/name: secure-inference
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{/* Labels of every object. What the operator's pods are found by cannot be overridden. */}}
{{- define "secure-inference.labels" -}}
{{- $own := dict
  "app.kubernetes.io/version" .Chart.AppVersion
  "app.kubernetes.io/managed-by" .Release.Service
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") }}
{{- toYaml (merge (include "secure-inference.selector" . | fromYaml) $own .Values.labels) }}
{{- end }}

{{/* The start of every object: apiVersion and kind are its template's own.
     Takes context, name, and optionally namespace ("" for objects without one), labels and annotations. */}}
{{- define "secure-inference.metadata" -}}
metadata:
  name: {{ .name }}
  {{- with dig "namespace" .context.Release.Namespace . }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- toYaml (merge (include "secure-inference.labels" .context | fromYaml) (dig "labels" dict .)) | nindent 4 }}
  {{- with merge (dict) (dig "annotations" dict .) .context.Values.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "secure-inference.serviceAccountName" -}}
{{- if or .Values.serviceAccount.create .Values.serviceAccount.name -}}
{{ .Values.serviceAccount.name | default (include "secure-inference.name" .) }}
{{- else -}}
{{ fail "serviceAccount.create is false, so serviceAccount.name must say which account to use" }}
{{- end }}
{{- end }}

{{- define "secure-inference.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* Fails if the API server does not know a kind of the Prometheus operator. Takes context, kind and value. */}}
{{- define "secure-inference.requireMonitor" -}}
{{- $api := printf "monitoring.coreos.com/v1/%s" .kind }}
{{- if not (or .context.Values.metrics.force (.context.Capabilities.APIVersions.Has $api)) }}
{{- fail (printf "%s is true, but the API server has no %s; install the Prometheus operator's definitions, or set %s to false. helm template asks no API server: give it --api-versions %s or set metrics.force to true" .value $api .value $api) }}
{{- end }}
{{- end }}

{{/* How Prometheus reads an endpoint. Takes the values of a monitor. */}}
{{- define "secure-inference.endpoint" -}}
- port: metrics
  {{- with .interval }}
  interval: {{ . }}
  {{- end }}
  {{- with .scrapeTimeout }}
  scrapeTimeout: {{ . }}
  {{- end }}
  {{- with .relabelings }}
  relabelings:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .metricRelabelings }}
  metricRelabelings:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* Names and labels. */}}

{{- define "twinsync.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* 50 characters: names that are derived from it have up to 12 more, and Kubernetes allows 63. */}}
{{- define "twinsync.fullname" -}}
{{- $name := include "twinsync.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Selects all resources of this release. */}}
{{- define "twinsync.selectorLabels" -}}
app.kubernetes.io/name: {{ include "twinsync.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Selects the daemon's pods, but not the pod of `helm test`. */}}
{{- define "twinsync.daemonLabels" -}}
{{ include "twinsync.selectorLabels" . }}
app.kubernetes.io/component: daemon
{{- end -}}

{{/* Selects the pods of `twinsync serve`. */}}
{{- define "twinsync.serveLabels" -}}
{{ include "twinsync.selectorLabels" . }}
app.kubernetes.io/component: serve
{{- end -}}

{{- define "twinsync.serveName" -}}
{{ include "twinsync.fullname" . }}-serve
{{- end -}}

{{- define "twinsync.labels" -}}
{{ include "twinsync.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "twinsync.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "twinsync.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "twinsync.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Parts that the daemon, `twinsync serve` and the pod of `helm test` share. */}}

{{/* The labels of a pod: dict "root" $ "labels" NAME. Without the chart's version, so that a new chart alone does not move partitions.
Merged, because a label must be unique. */}}
{{- define "twinsync.podLabels" -}}
{{- $labels := include .labels .root | fromYaml -}}
{{- if .root.Values.workloadIdentity.enabled -}}
{{- $_ := set $labels "azure.workload.identity/use" "true" -}}
{{- end -}}
{{- mustMerge $labels .root.Values.podLabels .root.Values.commonLabels | toYaml -}}
{{- end -}}

{{/* How a pod runs and where: dict "root" $ "labels" NAME, the labels by which its pods are spread. */}}
{{- define "twinsync.pod" -}}
{{- $root := .root -}}
{{- $labels := .labels -}}
{{- with $root.Values -}}
automountServiceAccountToken: {{ .serviceAccount.automountToken }}
# Disabled, because twinsync does not need the variables of other Services (such as TWINSYNC_PORT).
enableServiceLinks: false
terminationGracePeriodSeconds: {{ include "twinsync.gracePeriod" $root }}
{{- with .imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .podSecurityContext | nindent 2 }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  {{- $constraint := deepCopy . }}
  {{- if not $constraint.labelSelector }}
  {{- $_ := set $constraint "labelSelector" (dict "matchLabels" (include $labels $root | fromYaml)) }}
  {{- /* Counts only pods of one revision. Otherwise old pods would distort the spread of the new ones during an update. */}}
  {{- $_ := set $constraint "matchLabelKeys" (list "pod-template-hash") }}
  {{- end }}
  - {{- toYaml $constraint | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "twinsync.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: http}
  {{- toYaml .Values.probes.startup | nindent 2 }}
livenessProbe:
  httpGet: {path: /livez, port: http}
  {{- toYaml .Values.probes.liveness | nindent 2 }}
readinessProbe:
  httpGet: {path: /readyz, port: http}
  {{- toYaml .Values.probes.readiness | nindent 2 }}
{{- end -}}

{{- define "twinsync.env" -}}
{{/* Set here and not in the ConfigMap, because the image sets this variable, and variables override the file. */ -}}
- name: TWINSYNC__HTTP__LISTEN
  value: {{ printf "%s:%d" .Values.listenAddress (int .Values.port) | quote }}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.instanceMetadata) }}
# The network policy blocks the metadata service. Without this variable, the client of Cosmos DB would wait for it.
- name: COSMOS_DISABLE_IMDS
  value: "1"
{{- end }}
{{- if and .Values.readApi.enabled .Values.readApi.tlsSecret }}
# In all pods: the daemon does not read these files, but refuses a configuration of the read API without them.
- name: TWINSYNC__SERVE__CERTIFICATE_FILE
  value: /etc/twinsync-tls/tls.crt
- name: TWINSYNC__SERVE__KEY_FILE
  value: /etc/twinsync-tls/tls.key
{{- end }}
{{- range .Values.secrets.env }}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secretName }}
      key: {{ .key }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "twinsync.envFrom" -}}
{{- range .Values.secrets.envFrom }}
- secretRef:
    name: {{ . }}
{{- end }}
{{- end -}}

{{/* What only the pods of `twinsync serve` and the pod of `helm test`, which checks its files, have. */}}
{{- define "twinsync.readApiEnv" -}}
- name: TWINSYNC__SERVE__LISTEN
  value: {{ printf "%s:%d" .Values.listenAddress (int .Values.readApi.port) | quote }}
{{- with .Values.readApi.connectionStrings }}
{{- if .secretName }}
- name: TWINSYNC__SERVE__CONNECTION_STRINGS
  valueFrom:
    secretKeyRef:
      name: {{ .secretName }}
      key: {{ .key }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "twinsync.readApiMounts" -}}
{{- if .Values.readApi.tlsSecret }}
- name: tls
  mountPath: /etc/twinsync-tls
  readOnly: true
{{- end }}
{{- end -}}

{{- define "twinsync.readApiVolumes" -}}
{{- with .Values.readApi.tlsSecret }}
- name: tls
  secret:
    secretName: {{ . }}
    defaultMode: 292 # 0444, because the process is not root
{{- end }}
{{- end -}}

{{- define "twinsync.volumeMounts" -}}
- name: config
  mountPath: /etc/twinsync
  readOnly: true
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

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

{{/* Parts that the daemon and the pod of `helm test` share. */}}

{{- define "twinsync.env" -}}
{{/* Set here and not in the ConfigMap, because the image sets this variable, and variables override the file. */ -}}
- name: TWINSYNC__HTTP__LISTEN
  value: {{ printf "%s:%d" .Values.listenAddress (int .Values.port) | quote }}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.instanceMetadata) }}
# The network policy blocks the metadata service. Without this variable, the client of Cosmos DB would wait for it.
- name: COSMOS_DISABLE_IMDS
  value: "1"
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

{{- define "twinsync.volumeMounts" -}}
- name: config
  mountPath: /etc/twinsync
  readOnly: true
- name: data
  mountPath: /var/lib/twinsync
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

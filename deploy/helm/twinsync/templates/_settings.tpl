{{/*
The daemon's settings, and what the chart derives from them.

files/default.toml is a copy of config/default.toml, so the chart knows every setting and its default. It refuses unknown settings,
and decides by the effective values. `deploy/helm/check` compares the copy with the original.
*/}}

{{/* Settings that hold a secret. `deploy/helm/check` compares them with the marks in config/default.toml. */}}
{{- define "twinsync.secretSettings" -}}
cosmos.key credential.client_secret credential.token http.token iothub.connection_strings otlp.headers serve.connection_strings
{{- end -}}

{{/* Settings by which the chart chooses its resources. A variable would override them without the chart noticing. */}}
{{- define "twinsync.assessedSettings" -}}
checkpoint.store checkpoint.path dead_letters.store dead_letters.path shutdown.drain_timeout http.listen credential.kind serve.listen serve.tls serve.certificate_file serve.key_file
{{- end -}}

{{/* The settings of the ConfigMap, as a map (JSON): configToml unchanged, or config merged over the chart's own settings. */}}
{{- define "twinsync.written" -}}
{{- if .Values.configToml -}}
{{- if .Values.config -}}
{{- fail "set config or configToml, not both: the chart does not merge them" -}}
{{- end -}}
{{- $parsed := fromToml .Values.configToml -}}
{{- if and (hasKey $parsed "Error") (kindIs "string" $parsed.Error) -}}
{{- fail (printf "configToml is not valid TOML: %s" $parsed.Error) -}}
{{- end -}}
{{- $parsed | toJson -}}
{{- else -}}
{{- $own := dict "checkpoint" (dict "store" "blob") "dead_letters" (dict "store" "blob") "telemetry" (dict "log_format" "json") -}}
{{- if .Values.workloadIdentity.enabled -}}
{{- $_ := set $own "credential" (dict "kind" "workload") -}}
{{- end -}}
{{- mergeOverwrite $own (deepCopy .Values.config) | toJson -}}
{{- end -}}
{{- end -}}

{{/* The effective settings, as a map (JSON): the settings of the ConfigMap merged over the daemon's defaults. */}}
{{- define "twinsync.settings" -}}
{{- $defaults := .Files.Get "files/default.toml" | fromToml -}}
{{- mergeOverwrite $defaults (include "twinsync.written" . | fromJson) | toJson -}}
{{- end -}}

{{/* A map as TOML: dict "map" MAP "path" "". First the keys of a table, then its tables, then its lists of tables (counts). */}}
{{- define "twinsync.toml" -}}
{{- $path := .path -}}
{{- range $key, $value := .map -}}
{{- if kindIs "invalid" $value -}}
{{- else if and (kindIs "slice" $value) (eq $path "") -}}
{{- else if not (kindIs "map" $value) }}
{{ $key }} = {{ include "twinsync.tomlValue" $value }}
{{- end -}}
{{- end -}}
{{- range $key, $value := .map -}}
{{- if kindIs "map" $value -}}
{{- $table := ternary $key (printf "%s.%s" $path $key) (eq $path "") }}

[{{ $table }}]
{{- include "twinsync.toml" (dict "map" $value "path" $table) -}}
{{- end -}}
{{- end -}}
{{- if eq $path "" -}}
{{- range $key, $value := .map -}}
{{- if kindIs "slice" $value -}}
{{- range $value }}

[[{{ $key }}]]
{{- include "twinsync.toml" (dict "map" . "path" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Helm parses every number as a float, and would write 1000000 as 1e+06. JSON strings are also valid TOML strings. */}}
{{- define "twinsync.tomlValue" -}}
{{- if kindIs "float64" . -}}
{{- if eq . (floor .) -}}{{ printf "%d" (int64 .) }}{{- else -}}{{ . }}{{- end -}}
{{- else if or (kindIs "string" .) (kindIs "slice" .) -}}
{{- . | toRawJson -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{/* The file of the ConfigMap. */}}
{{- define "twinsync.file" -}}
{{- if .Values.configToml -}}
{{ .Values.configToml }}
{{- else -}}
{{ include "twinsync.toml" (dict "map" (include "twinsync.written" . | fromJson) "path" "") | trim }}
{{- end -}}
{{- end -}}

{{/* A duration such as "1h30m" in milliseconds, parsed as the daemon parses it. */}}
{{- define "twinsync.milliseconds" -}}
{{- $text := nospace .text -}}
{{- if not (regexMatch "^([0-9]+(ms|s|m|h|d))+$" $text) -}}
{{- fail (printf "%s = %q is not a duration: write for example \"25s\" or \"1m30s\"" .setting .text) -}}
{{- end -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h|d)" $text -1 -}}
{{- $sum = add $sum (mul (regexFind "^[0-9]+" . | int64) (get $units (regexFind "[a-z]+$" .))) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/* shutdown.drain_timeout in seconds, rounded up. */}}
{{- define "twinsync.drainSeconds" -}}
{{- $settings := include "twinsync.settings" . | fromJson -}}
{{- $milliseconds := include "twinsync.milliseconds" (dict "setting" "shutdown.drain_timeout" "text" $settings.shutdown.drain_timeout) | int64 -}}
{{- div (add $milliseconds 999) 1000 -}}
{{- end -}}

{{- define "twinsync.gracePeriod" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- add (include "twinsync.drainSeconds" . | int64) 10 -}}
{{- else -}}
{{- .Values.terminationGracePeriodSeconds | int64 -}}
{{- end -}}
{{- end -}}

{{/* "true" if only one pod may run at a time, because its directory belongs to one process. */}}
{{- define "twinsync.alone" -}}
{{- $settings := include "twinsync.settings" . | fromJson -}}
{{- if or (ne $settings.checkpoint.store "blob") (and .Values.persistence.enabled (ne .Values.persistence.accessMode "ReadWriteMany")) -}}
true
{{- end -}}
{{- end -}}

{{/* Storage account and container of the checkpoints, as JSON, for KEDA. */}}
{{- define "twinsync.checkpointContainer" -}}
{{- $settings := include "twinsync.settings" . | fromJson -}}
{{- $url := $settings.blob.container_url -}}
{{- $found := dict "account" .Values.autoscaling.storageAccount "container" .Values.autoscaling.blobContainer -}}
{{- if regexMatch "^https://[a-z0-9]+[.]blob[.][^/]+/[^/?]+/?$" $url -}}
{{- $parts := splitList "/" $url -}}
{{- if not $found.account -}}{{- $_ := set $found "account" (index $parts 2 | splitList "." | first) -}}{{- end -}}
{{- if not $found.container -}}{{- $_ := set $found "container" (index $parts 3) -}}{{- end -}}
{{- end -}}
{{- if not (and $found.account $found.container) -}}
{{- fail "autoscaling: blob.container_url does not contain the storage account and the container: set autoscaling.storageAccount and autoscaling.blobContainer" -}}
{{- end -}}
{{- $found | toJson -}}
{{- end -}}

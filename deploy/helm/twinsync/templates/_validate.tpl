{{/* What must not be installed. Each message says what to do instead. configmap.yaml includes this, and
scaledobject.yaml, which Helm renders before and which would fail with less to say. */}}
{{- define "twinsync.validate" -}}
{{- $written := include "twinsync.written" . | fromJson -}}
{{- $settings := include "twinsync.settings" . | fromJson -}}
{{- $defaults := .Files.Get "files/default.toml" | fromToml -}}
{{- $secret := include "twinsync.secretSettings" . | trim | splitList " " -}}
{{- $assessed := include "twinsync.assessedSettings" . | trim | splitList " " -}}

{{- if not .Values.image.repository -}}
{{- fail "image.repository is required: build the image of the repository's Dockerfile and push it to a registry of yours" -}}
{{- end -}}

{{- /* Settings: known, of the right kind, and no secret. */ -}}
{{- include "twinsync.validateTable" (dict "written" $written "defaults" $defaults "path" "" "secret" $secret) -}}
{{- if dig "http" "listen" "" $written -}}
{{- fail "http.listen is made of port and listenAddress: set those" -}}
{{- end -}}
{{- if regexMatch "[?@]" $settings.blob.container_url -}}
{{- fail "blob.container_url holds a signature, which is a secret: give it by secrets.env as TWINSYNC__BLOB__CONTAINER_URL" -}}
{{- end -}}

{{- /* Variables. */ -}}
{{- $byVariable := dict -}}
{{- range .Values.secrets.env -}}
{{- if hasPrefix "TWINSYNC__" .name -}}
{{- $setting := .name | trimPrefix "TWINSYNC__" | lower | replace "__" "." -}}
{{- $known := $defaults -}}
{{- $found := true -}}
{{- range splitList "." $setting -}}
{{- if and $found (kindIs "map" $known) (hasKey $known .) -}}
{{- $known = get $known . -}}
{{- else -}}
{{- $found = false -}}
{{- end -}}
{{- end -}}
{{- if or (not $found) (kindIs "map" $known) -}}
{{- fail (printf "secrets.env: %s names no setting (%s)" .name $setting) -}}
{{- end -}}
{{- if has $setting $assessed -}}
{{- fail (printf "secrets.env: %s would win over what the chart decides by: set %s in config" .name $setting) -}}
{{- end -}}
{{- $_ := set $byVariable $setting true -}}
{{- end -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if hasPrefix "TWINSYNC__" .name -}}
{{- fail (printf "extraEnv: %s is a setting: it belongs in config, or in secrets.env if it is a secret" .name) -}}
{{- end -}}
{{- end -}}

{{- /* Required settings, unless a Secret as a whole may hold them. */ -}}
{{- if not .Values.secrets.envFrom -}}
{{- range list "eventhubs.namespace" "eventhubs.lifecycle.hub" "eventhubs.twin_changes.hub" "cosmos.endpoint" -}}
{{- $value := $settings -}}
{{- range splitList "." . -}}{{- $value = get $value . -}}{{- end -}}
{{- if not (or $value (hasKey $byVariable .)) -}}
{{- fail (printf "config: %s is required" .) -}}
{{- end -}}
{{- end -}}
{{- if and (or (eq $settings.checkpoint.store "blob") (eq $settings.dead_letters.store "blob")) (not $settings.blob.container_url) (not (hasKey $byVariable "blob.container_url")) -}}
{{- fail "config: blob.container_url is required where checkpoint.store or dead_letters.store is \"blob\", as the chart sets them" -}}
{{- end -}}
{{- end -}}

{{- /* Replicas and where their state is. */ -}}
{{- $several := or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) -}}
{{- if and $several (ne $settings.checkpoint.store "blob") -}}
{{- fail (printf "checkpoint.store = %q is for one replica: set it to \"blob\", or replicas to 1 and autoscaling.enabled to false" $settings.checkpoint.store) -}}
{{- end -}}
{{- if and $several .Values.persistence.enabled (ne .Values.persistence.accessMode "ReadWriteMany") -}}
{{- fail (printf "persistence.accessMode %s is for one replica: set it to ReadWriteMany, or put checkpoints and dead letters on blobs" .Values.persistence.accessMode) -}}
{{- end -}}
{{- range list "checkpoint" "dead_letters" -}}
{{- $at := get $settings . -}}
{{- if eq $at.store "file" -}}
{{- if not (or $.Values.persistence.enabled $.Values.persistence.acceptLoss) -}}
{{- fail (printf "%s.store = \"file\" would be lost with the pod: set it to \"blob\", or persistence.enabled (for a trial: persistence.acceptLoss)" .) -}}
{{- end -}}
{{- if not (hasPrefix "/var/lib/twinsync/" $at.path) -}}
{{- fail (printf "%s.path = %q is not below /var/lib/twinsync, where the volume is; everything else is read-only" . $at.path) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq $settings.checkpoint.store "memory") (not .Values.persistence.acceptLoss) -}}
{{- fail "checkpoint.store = \"memory\" begins anew at each start: set it to \"blob\" (for a trial: persistence.acceptLoss)" -}}
{{- end -}}

{{- /* Stopping. */ -}}
{{- $drain := include "twinsync.drainSeconds" . | int -}}
{{- $grace := include "twinsync.gracePeriod" . | int -}}
{{- if lt $grace (add $drain 5 | int) -}}
{{- fail (printf "terminationGracePeriodSeconds %d is too short: shutdown.drain_timeout is %d s and what follows takes up to 5 s, so give %d or more" $grace $drain (add $drain 5)) -}}
{{- end -}}

{{- /* Identity. */ -}}
{{- if .Values.workloadIdentity.enabled -}}
{{- if not (has $settings.credential.kind (list "auto" "workload")) -}}
{{- fail (printf "workloadIdentity is enabled, and credential.kind = %q would not use it: leave it out" $settings.credential.kind) -}}
{{- end -}}
{{- if and .Values.serviceAccount.create (not .Values.workloadIdentity.clientId) -}}
{{- fail "workloadIdentity.clientId is required where workloadIdentity is enabled and the chart makes the service account" -}}
{{- end -}}
{{- end -}}

{{- /* Updates. */ -}}
{{- if and (has (toString .Values.update.maxSurge) (list "0" "0%")) (has (toString .Values.update.maxUnavailable) (list "0" "0%")) -}}
{{- fail "update.maxSurge and update.maxUnavailable are both 0: no update could begin" -}}
{{- end -}}

{{- /* Monitoring. */ -}}
{{- if and (or .Values.podMonitor.enabled .Values.prometheusRule.enabled) (not (contains "twinsync" (include "twinsync.fullname" .))) -}}
{{- fail (printf "the name %q does not contain \"twinsync\": the alert rules know their job by it; set fullnameOverride" (include "twinsync.fullname" .)) -}}
{{- end -}}
{{- if and .Values.podMonitor.enabled .Values.networkPolicy.enabled (not .Values.networkPolicy.ingressFrom) -}}
{{- fail "networkPolicy.ingressFrom names nobody, so Prometheus could not scrape the pods: name it there, or switch podMonitor off" -}}
{{- end -}}

{{- /* Autoscaling. */ -}}
{{- with .Values.autoscaling -}}
{{- if .enabled -}}
{{- if not .partitions -}}
{{- fail "autoscaling.partitions is required: the partitions of the Event Hub, of the larger one where there are two" -}}
{{- end -}}
{{- if gt (int .maxReplicas) (int .partitions) -}}
{{- fail (printf "autoscaling.maxReplicas %d is more than the %d partitions: the others would have nothing to do" (int .maxReplicas) (int .partitions)) -}}
{{- end -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- fail (printf "autoscaling.minReplicas %d is more than maxReplicas %d" (int .minReplicas) (int .maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* One table of what is written, against the same table of the defaults. */}}
{{- define "twinsync.validateTable" -}}
{{- range $key, $value := .written -}}
{{- $setting := ternary $key (printf "%s.%s" $.path $key) (eq $.path "") -}}
{{- $default := get $.defaults $key -}}
{{- if and (ne $setting "counts") (not (hasKey $.defaults $key)) -}}
{{- fail (printf "config: %s is no setting of twinsync; files/default.toml lists them" $setting) -}}
{{- end -}}
{{- if eq $setting "counts" -}}
{{- include "twinsync.validateCounts" $value -}}
{{- else if kindIs "map" $default -}}
{{- if not (kindIs "map" $value) -}}
{{- fail (printf "config: %s is a table, not a value" $setting) -}}
{{- end -}}
{{- include "twinsync.validateTable" (dict "written" $value "defaults" $default "path" $setting "secret" $.secret) -}}
{{- else if kindIs "invalid" $value -}}
{{- else if has $setting $.secret -}}
{{- if $value -}}
{{- fail (printf "config: %s is a secret, and a ConfigMap is none: give it by secrets.env as TWINSYNC__%s" $setting ($setting | replace "." "__" | upper)) -}}
{{- end -}}
{{- else if and (kindIs "string" $default) (not (kindIs "string" $value)) -}}
{{- fail (printf "config: %s is text: write it in quotes" $setting) -}}
{{- else if and (not (kindIs "string" $default)) (not (and (kindIs "float64" $value) (eq $value (floor $value)))) -}}
{{- fail (printf "config: %s is a whole number, without quotes" $setting) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The one list among the settings. The daemon validates names, conditions and paths. */}}
{{- define "twinsync.validateCounts" -}}
{{- if not (kindIs "slice" .) -}}
{{- fail "config: counts is a list: write each count as an entry, with its name" -}}
{{- end -}}
{{- range . -}}
{{- if not (kindIs "map" .) -}}
{{- fail "config: an entry of counts has keys: name, from, where, group_by" -}}
{{- end -}}
{{- range $key, $value := . -}}
{{- if not (has $key (list "name" "from" "where" "group_by")) -}}
{{- fail (printf "config: counts has no %s: a count has name, from, where, group_by" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

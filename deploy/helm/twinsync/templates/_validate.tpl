{{/* Refuses values that must not be installed. Each message says what to do instead. configmap.yaml includes this. scaledobject.yaml
includes it too: Helm renders it first, and its own errors would say less. */}}
{{- define "twinsync.validate" -}}
{{- $written := include "twinsync.written" . | fromJson -}}
{{- $settings := include "twinsync.settings" . | fromJson -}}
{{- $defaults := .Files.Get "files/default.toml" | fromToml -}}
{{- $secret := include "twinsync.secretSettings" . | trim | splitList " " -}}
{{- $assessed := include "twinsync.assessedSettings" . | trim | splitList " " -}}

{{- if not .Values.image.repository -}}
{{- fail "image.repository is required: build the image from the repository's Dockerfile, push it to your registry, and set its name" -}}
{{- end -}}

{{- /* Settings: known, of the right type, and not secret. */ -}}
{{- include "twinsync.validateTable" (dict "written" $written "defaults" $defaults "path" "" "secret" $secret) -}}
{{- if dig "http" "listen" "" $written -}}
{{- fail "the chart derives http.listen from port and listenAddress: set those instead" -}}
{{- end -}}
{{- if regexMatch "[?@]" $settings.blob.container_url -}}
{{- fail "blob.container_url contains a signature, which is a secret: set it in secrets.env as TWINSYNC__BLOB__CONTAINER_URL" -}}
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
{{- fail (printf "secrets.env: %s is not a setting: config/default.toml has no %s" .name $setting) -}}
{{- end -}}
{{- if has $setting $assessed -}}
{{- fail (printf "secrets.env: %s would override a setting by which the chart chooses its resources: set %s in config instead" .name $setting) -}}
{{- end -}}
{{- $_ := set $byVariable $setting true -}}
{{- end -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if hasPrefix "TWINSYNC__" .name -}}
{{- fail (printf "extraEnv: %s is a setting: set it in config, or in secrets.env if it is a secret" .name) -}}
{{- end -}}
{{- end -}}

{{- /* Required settings, unless a Secret of envFrom may contain them. */ -}}
{{- if not .Values.secrets.envFrom -}}
{{- range list "eventhubs.namespace" "eventhubs.lifecycle.hub" "eventhubs.twin_changes.hub" "cosmos.endpoint" -}}
{{- $value := $settings -}}
{{- range splitList "." . -}}{{- $value = get $value . -}}{{- end -}}
{{- if not (or $value (hasKey $byVariable .)) -}}
{{- fail (printf "config: %s is required" .) -}}
{{- end -}}
{{- end -}}
{{- if and (or (eq $settings.checkpoint.store "blob") (eq $settings.dead_letters.store "blob")) (not $settings.blob.container_url) (not (hasKey $byVariable "blob.container_url")) -}}
{{- fail "config: blob.container_url is required if checkpoint.store or dead_letters.store is \"blob\", which is the chart's default" -}}
{{- end -}}
{{- end -}}

{{- /* Replicas and the place of their state. */ -}}
{{- $several := or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) -}}
{{- if and $several (ne $settings.checkpoint.store "blob") -}}
{{- fail (printf "checkpoint.store = %q supports only one replica: set it to \"blob\", or set replicas to 1 and autoscaling.enabled to false" $settings.checkpoint.store) -}}
{{- end -}}
{{- if and $several .Values.persistence.enabled (ne .Values.persistence.accessMode "ReadWriteMany") -}}
{{- fail (printf "persistence.accessMode %s supports only one replica: set it to ReadWriteMany, or store checkpoints and dead letters as blobs" .Values.persistence.accessMode) -}}
{{- end -}}
{{- range list "checkpoint" "dead_letters" -}}
{{- $at := get $settings . -}}
{{- if eq $at.store "file" -}}
{{- if not (or $.Values.persistence.enabled $.Values.persistence.acceptLoss) -}}
{{- fail (printf "files of %s.store = \"file\" would be lost with the pod: set it to \"blob\", or set persistence.enabled (for a trial: persistence.acceptLoss)" .) -}}
{{- end -}}
{{- if not (hasPrefix "/var/lib/twinsync/" $at.path) -}}
{{- fail (printf "%s.path = %q is not below /var/lib/twinsync: set a path below it, because all other directories are read-only" . $at.path) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq $settings.checkpoint.store "memory") (not .Values.persistence.acceptLoss) -}}
{{- fail "checkpoint.store = \"memory\" loses the checkpoints at each restart: set it to \"blob\" (for a trial: persistence.acceptLoss)" -}}
{{- end -}}

{{- /* Shutdown. */ -}}
{{- $drain := include "twinsync.drainSeconds" . | int -}}
{{- $grace := include "twinsync.gracePeriod" . | int -}}
{{- if lt $grace (add $drain 5 | int) -}}
{{- fail (printf "terminationGracePeriodSeconds %d is too short: shutdown.drain_timeout is %d s, and the last checkpoints take up to 5 s; set it to %d or more" $grace $drain (add $drain 5)) -}}
{{- end -}}

{{- /* Identity. */ -}}
{{- if .Values.workloadIdentity.enabled -}}
{{- if not (has $settings.credential.kind (list "auto" "workload")) -}}
{{- fail (printf "workloadIdentity is enabled, but credential.kind = %q does not use it: remove credential.kind" $settings.credential.kind) -}}
{{- end -}}
{{- if and .Values.serviceAccount.create (not .Values.workloadIdentity.clientId) -}}
{{- fail "workloadIdentity.clientId is required if workloadIdentity is enabled and the chart creates the service account" -}}
{{- end -}}
{{- end -}}

{{- /* The read API. */ -}}
{{- if .Values.readApi.enabled -}}
{{- $serve := $settings.serve -}}
{{- if dig "serve" "listen" "" $written -}}
{{- fail "the chart derives serve.listen from readApi.port and listenAddress: set those instead" -}}
{{- end -}}
{{- if eq (int .Values.readApi.port) (int .Values.port) -}}
{{- fail (printf "readApi.port and port are both %d, and its pods listen on both: change one of them" (int .Values.port)) -}}
{{- end -}}
{{- if eq $serve.tls "ingress" -}}
{{- if .Values.readApi.tlsSecret -}}
{{- fail "readApi.tlsSecret has no effect with serve.tls = \"ingress\" in config: remove one of them" -}}
{{- end -}}
{{- else if and .Values.readApi.tlsSecret (or $serve.certificate_file $serve.key_file) -}}
{{- fail "readApi.tlsSecret replaces serve.certificate_file and serve.key_file in config: set one or the other" -}}
{{- else if not (or .Values.readApi.tlsSecret (and $serve.certificate_file $serve.key_file)) -}}
{{- fail "readApi.tlsSecret is required: name a Secret of type kubernetes.io/tls; behind an ingress that ends TLS, set config.serve.tls to \"ingress\" instead" -}}
{{- end -}}
{{- if not (or .Values.readApi.connectionStrings.secretName $serve.entra_tenant (hasKey $byVariable "serve.connection_strings") .Values.secrets.envFrom) -}}
{{- fail "nobody may read: set readApi.connectionStrings.secretName, or serve.entra_tenant in config" -}}
{{- end -}}
{{- if and .Values.readApi.connectionStrings.secretName (hasKey $byVariable "serve.connection_strings") -}}
{{- fail "readApi.connectionStrings and TWINSYNC__SERVE__CONNECTION_STRINGS in secrets.env set the same setting: remove one of them" -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.readApiFrom) -}}
{{- fail "networkPolicy.readApiFrom is empty, so no client could reach the read API: add its clients, or the ingress" -}}
{{- end -}}
{{- end -}}

{{- /* Updates. */ -}}
{{- if and (has (toString .Values.update.maxSurge) (list "0" "0%")) (has (toString .Values.update.maxUnavailable) (list "0" "0%")) -}}
{{- fail "update.maxSurge and update.maxUnavailable are both 0, so an update could not begin: raise one of them" -}}
{{- end -}}

{{- /* Monitoring. */ -}}
{{- if and (or .Values.podMonitor.enabled .Values.prometheusRule.enabled) (not (contains "twinsync" (include "twinsync.fullname" .))) -}}
{{- fail (printf "the name %q does not contain \"twinsync\", by which the alert rules select the job: set fullnameOverride" (include "twinsync.fullname" .)) -}}
{{- end -}}
{{- if and .Values.podMonitor.enabled .Values.networkPolicy.enabled (not .Values.networkPolicy.ingressFrom) -}}
{{- fail "networkPolicy.ingressFrom is empty, so Prometheus could not scrape the pods: add Prometheus to it, or disable podMonitor" -}}
{{- end -}}

{{- /* Autoscaling. */ -}}
{{- with .Values.autoscaling -}}
{{- if .enabled -}}
{{- if not .partitions -}}
{{- fail "autoscaling.partitions is required: set it to the number of partitions of the Event Hub, or of the larger one of two" -}}
{{- end -}}
{{- if gt (int .maxReplicas) (int .partitions) -}}
{{- fail (printf "autoscaling.maxReplicas %d is more than the %d partitions: reduce it, because the additional pods would be idle" (int .maxReplicas) (int .partitions)) -}}
{{- end -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- fail (printf "autoscaling.minReplicas %d is more than maxReplicas %d: reduce it, or raise maxReplicas" (int .minReplicas) (int .maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Compares one table of the given settings with the same table of the defaults. */}}
{{- define "twinsync.validateTable" -}}
{{- range $key, $value := .written -}}
{{- $setting := ternary $key (printf "%s.%s" $.path $key) (eq $.path "") -}}
{{- $default := get $.defaults $key -}}
{{- if and (ne $setting "counts") (not (hasKey $.defaults $key)) -}}
{{- fail (printf "config: %s is not a setting of twinsync: files/default.toml lists the settings" $setting) -}}
{{- end -}}
{{- if eq $setting "counts" -}}
{{- include "twinsync.validateCounts" $value -}}
{{- else if kindIs "map" $default -}}
{{- if not (kindIs "map" $value) -}}
{{- fail (printf "config: %s is a table, not a value: set its keys" $setting) -}}
{{- end -}}
{{- include "twinsync.validateTable" (dict "written" $value "defaults" $default "path" $setting "secret" $.secret) -}}
{{- else if kindIs "invalid" $value -}}
{{- else if has $setting $.secret -}}
{{- if $value -}}
{{- fail (printf "config: %s is a secret, and a ConfigMap is not protected: set it in secrets.env as TWINSYNC__%s" $setting ($setting | replace "." "__" | upper)) -}}
{{- end -}}
{{- else if and (kindIs "string" $default) (not (kindIs "string" $value)) -}}
{{- fail (printf "config: %s is text: write it in quotes" $setting) -}}
{{- else if and (not (kindIs "string" $default)) (not (and (kindIs "float64" $value) (eq $value (floor $value)))) -}}
{{- fail (printf "config: %s is a whole number, without quotes" $setting) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The only setting that is a list. The daemon validates names, conditions and paths. */}}
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
{{- fail (printf "config: an entry of counts has no key %s: it has name, from, where, group_by" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "kaa-gateway.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 53 | trimSuffix "-" }}
{{- end -}}

{{- define "kaa-gateway.fullname" -}}
{{- $name := include "kaa-gateway.name" . -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 53 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{ .Release.Name | trunc 53 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $name | trunc 53 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "kaa-gateway.selector" -}}
app.kubernetes.io/name: {{ include "kaa-gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "kaa-gateway.labels" -}}
{{ include "kaa-gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: kaa
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* The listeners that the configuration opens: a YAML list of name, port, protocol. */}}
{{- define "kaa-gateway.ports" -}}
{{- $transports := .Values.config.kaa.kpc.transports -}}
{{- range list
      (list "mqtt" "TCP" (dig "mqtt" "tcp" dict $transports))
      (list "mqtts" "TCP" (dig "mqtt" "tls" dict $transports))
      (list "ws" "TCP" (dig "mqtt" "websocket" dict $transports))
      (list "wss" "TCP" (dig "mqtt" "websocket" "tls" dict $transports))
      (list "http" "TCP" (dig "http" dict $transports))
      (list "https" "TCP" (dig "http" "tls" dict $transports))
      (list "coap" "UDP" (dig "coap" dict $transports))
      (list "coaps" "UDP" (dig "coap" "dtls" dict $transports))
      (list "kpudp" "UDP" (dig "udp" dict $transports))
      (list "kpudp-secure" "UDP" (dig "udp" "secure" dict $transports))
      (list "mqtt-sn" "UDP" (dig "mqtt-sn" dict $transports))
      (list "mqtt-sns" "UDP" (dig "mqtt-sn" "dtls" dict $transports))
      (list "coap-tcp" "TCP" (dig "coap" "tcp" dict $transports))
      (list "coaps-tcp" "TCP" (dig "coap" "tls" dict $transports))
      (list "coap-ws" "TCP" (dig "coap" "websocket" dict $transports))
      (list "coaps-ws" "TCP" (dig "coap" "websocket" "tls" dict $transports)) }}
{{- $listener := index . 2 }}
{{- if $listener.enabled }}
- {name: {{ index . 0 }}, port: {{ required (printf "config: the listener %s needs a port" (index . 0)) $listener.port }}, protocol: {{ index . 1 }}}
{{- end }}
{{- end }}
{{- range $name, $settings := dig "protocols" dict $transports }}
{{- $portName := $name | lower | replace "_" "-" | trunc 11 }}
{{- $below := upper ($settings.transport | default "tcp") }}
{{- if ne (toString $settings.enabled) "false" }}
- {name: {{ $portName }}, port: {{ required (printf "config: the protocol %s needs a port" $name) $settings.port }}, protocol: {{ $below }}}
{{- end }}
{{- $encrypted := (eq $below "TCP" | ternary $settings.tls $settings.dtls) | default dict }}
{{- if $encrypted.enabled }}
- {name: {{ $portName }}-tls, port: {{ required (printf "config: the protocol %s needs a port for encryption" $name) $encrypted.port }}, protocol: {{ $below }}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "kaa-gateway.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "kaa-gateway.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "kaa-gateway.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{/* The key of the NATS Secret that holds a credentials file; empty if there is none. */}}
{{- define "kaa-gateway.natsCredentialsKey" -}}
{{- if .Values.nats.existingSecret -}}
{{ .Values.nats.existingSecretCredentialsKey }}
{{- else if .Values.nats.credentials -}}
user.creds
{{- end -}}
{{- end -}}

{{/* The backends of an Ingress or HTTPRoute: fails when a path leads to a port that is not open. */}}
{{- define "kaa-gateway.checkPaths" -}}
{{- $open := dict -}}
{{- range include "kaa-gateway.ports" .root | fromYamlArray }}{{ $_ := set $open .name .port }}{{ end -}}
{{- range .paths -}}
{{- if not (hasKey $open .port) -}}
{{ fail (printf "%s.paths: the path %s leads to the port %s, which `config` does not open" $.what .path .port) }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The Secret with the NATS servers. */}}
{{- define "kaa-gateway.natsSecret" -}}
{{- .Values.nats.existingSecret | default (printf "%s-nats" (include "kaa-gateway.fullname" .)) -}}
{{- end -}}

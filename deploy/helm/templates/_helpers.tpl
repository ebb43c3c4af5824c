{{- define "kaa-gateway.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | trunc 53 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 53 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "kaa-gateway.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
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
      (list "kpudp" "UDP" (dig "udp" dict $transports)) }}
{{- $listener := index . 2 }}
{{- if $listener.enabled }}
- {name: {{ index . 0 }}, port: {{ required (printf "config: the listener %s needs a port" (index . 0)) $listener.port }}, protocol: {{ index . 1 }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* The Secret with the NATS servers. */}}
{{- define "kaa-gateway.natsSecret" -}}
{{- .Values.nats.existingSecret | default (printf "%s-nats" (include "kaa-gateway.fullname" .)) -}}
{{- end -}}

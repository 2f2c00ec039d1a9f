{{/*
Copyright The gpu_exporter Authors
SPDX-License-Identifier: Apache-2.0
*/}}

{{- define "gpu-exporter.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "gpu-exporter.fullname" -}}
{{- $name := include "gpu-exporter.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "gpu-exporter.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{- define "gpu-exporter.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "gpu-exporter.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "gpu-exporter.selectorLabels" -}}
app.kubernetes.io/name: {{ include "gpu-exporter.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of each object. Those that change with a release are not in the pods, because they would restart them. */}}
{{- define "gpu-exporter.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "gpu-exporter.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "gpu-exporter.metadata" -}}
name: {{ include "gpu-exporter.fullname" . }}
namespace: {{ include "gpu-exporter.namespace" . }}
labels:
  {{- include "gpu-exporter.labels" . | nindent 2 }}
{{- end }}

{{- define "gpu-exporter.image" -}}
{{- with .Values.image -}}
{{- with default ($.Values.global).imageRegistry .registry }}{{ trimSuffix "/" . }}/{{ end }}{{ .repository }}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{/* The name of the Service, which a certificate has. */}}
{{- define "gpu-exporter.host" -}}
{{ include "gpu-exporter.fullname" . }}.{{ include "gpu-exporter.namespace" . }}.svc
{{- end }}

{{/* Whether there is a ServiceMonitor: by default, if the cluster knows the kind. */}}
{{- define "gpu-exporter.serviceMonitor" -}}
{{- $known := and (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1/ServiceMonitor") .Values.service.enable (not .Values.podMonitor.enabled) }}
{{- if ternary $known .Values.serviceMonitor.enabled (kindIs "invalid" .Values.serviceMonitor.enabled) }}true{{ end }}
{{- end }}

{{/*
Copyright The gpu_exporter Authors
SPDX-License-Identifier: Apache-2.0
What the pod needs, which follows from several values.
*/}}

{{/* Whether a feature needs more of pods than their names. */}}
{{- define "gpu-exporter.describesPods" -}}
{{- with .Values.kubernetes }}{{ if and .enabled (or .enablePodLabels .enablePodUID .workload) }}true{{ end }}{{ end }}
{{- end }}
{{/* Whether it comes from the API server. */}}
{{- define "gpu-exporter.readsPods" -}}
{{- if and (include "gpu-exporter.describesPods" .) (ne .Values.kubernetes.metadataSource "kubelet") }}true{{ end }}
{{- end }}
{{- define "gpu-exporter.usesAPIServer" -}}
{{- if or (include "gpu-exporter.readsPods" .) .Values.kubernetesDRA.enabled }}true{{ end }}
{{- end }}

{{- define "gpu-exporter.privileged" -}}
{{- if or .Values.privileges.kernelLog .Values.privileges.devices }}true{{ end }}
{{- end }}
{{- define "gpu-exporter.root" -}}
{{- if or .Values.kubernetes.enabled .Values.hostPID .Values.privileges.profiling (include "gpu-exporter.privileged" .) }}true{{ end }}
{{- end }}

{{/* The directories of the node: name, path on the node and path in the container. */}}
{{- define "gpu-exporter.directories" -}}
{{- if .Values.kubernetes.enabled }}
- {name: pod-resources, node: {{ .Values.kubeletPath }}, mount: /var/lib/kubelet/pod-resources}
{{- end }}
{{- if and .Values.kubernetes.enabled .Values.privileges.devicePlugins }}
- {name: device-plugins, node: {{ dir .Values.kubeletPath }}/device-plugins, mount: /var/lib/kubelet/device-plugins}
{{- end }}
{{- if and (include "gpu-exporter.describesPods" .) (ne .Values.kubernetes.metadataSource "api-server") }}
- {name: pods-api, node: {{ dir .Values.kubeletPath }}/pods-api, mount: /var/lib/kubelet/pods-api}
{{- end }}
{{- if .Values.hostPID }}
- {name: pod-logs, node: /var/log/pods, mount: /var/log/pods}
- {name: container-logs, node: /var/log/containers, mount: /var/log/containers}
{{- end }}
{{- if .Values.privileges.kernelLog }}
- {name: kmsg, node: /dev/kmsg, mount: /dev/kmsg, type: CharDevice}
{{- end }}
{{- if eq .Values.source.type "hostengine" }}
{{- $path := trimPrefix "unix://" .Values.source.hostengine }}
{{- if hasPrefix "/" $path }}
- {name: hostengine, node: {{ dir $path }}, mount: {{ dir $path }}}
{{- end }}
{{- end }}
{{- with .Values.source.libraryPath }}
- {name: dcgm, node: {{ . }}, mount: /opt/dcgm}
{{- end }}
{{- end }}

{{/* The counters file, or nothing. It is the default one if profiling fields have to be removed from it. */}}
{{- define "gpu-exporter.counters" -}}
{{- $counters := .Values.customMetrics }}
{{- if not .Values.source.profilingFields }}
{{- $counters = regexReplaceAll "(?m)^[ \\t]*DCGM_FI_PROF_.*\\n?" (default (.Files.Get "default-counters.csv") $counters) "" }}
{{- end }}
{{- $counters }}
{{- end }}

{{/* Files of the exporter. They are in a directory, so that the exporter sees changes. */}}
{{- define "gpu-exporter.files" -}}
{{- $counters := include "gpu-exporter.counters" . }}
{{- if or .Values.config $counters }}
gpu_exporter.yaml: |
  {{- toYaml .Values.config | nindent 2 }}
{{- with $counters }}
counters.csv: |
  {{- . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* The web configuration of exporter-toolkit, or nothing. */}}
{{- define "gpu-exporter.webConfig" -}}
{{- if and (not .Values.basicAuth.existingSecret) (or .Values.tlsServerConfig.enabled .Values.basicAuth.users) }}
{{- with .Values.tlsServerConfig }}
{{- if .enabled }}
tls_server_config:
  cert_file: /etc/gpu_exporter/tls/{{ .certFilename }}
  key_file: /etc/gpu_exporter/tls/{{ .keyFilename }}
  {{- with .clientAuthType }}
  client_auth_type: {{ . }}
  client_ca_file: /etc/gpu_exporter/tls/{{ $.Values.tlsServerConfig.caFilename }}
  {{- end }}
{{- end }}
{{- end }}
{{- with .Values.basicAuth.users }}
basic_auth_users:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}
{{- define "gpu-exporter.webConfigSecret" -}}
{{- if .Values.basicAuth.existingSecret }}{{ .Values.basicAuth.existingSecret }}
{{- else if include "gpu-exporter.webConfig" . }}{{ include "gpu-exporter.fullname" . }}-web{{ end }}
{{- end }}

{{/* Whether clients need a password or a certificate. */}}
{{- define "gpu-exporter.authenticated" -}}
{{- if or .Values.basicAuth.users .Values.basicAuth.existingSecret .Values.tlsServerConfig.clientAuthType }}true{{ end }}
{{- end }}

{{/* The nodes with GPUs, if no value selects nodes: those with a label of GPUs. */}}
{{- define "gpu-exporter.affinity" -}}
{{- if or .Values.affinity .Values.nodeSelector }}
{{- with .Values.affinity }}{{ toYaml . }}{{ end }}
{{- else -}}
nodeAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    nodeSelectorTerms:
      # The GPU Operator, GPU feature discovery and node feature discovery.
      - matchExpressions: [{key: nvidia.com/gpu.present, operator: In, values: ["true"]}]
      - matchExpressions: [{key: nvidia.com/gpu.count, operator: Exists}]
      - matchExpressions: [{key: feature.node.kubernetes.io/pci-10de.present, operator: In, values: ["true"]}]
      - matchExpressions: [{key: feature.node.kubernetes.io/pci-0300_10de.present, operator: In, values: ["true"]}]
      - matchExpressions: [{key: feature.node.kubernetes.io/pci-0302_10de.present, operator: In, values: ["true"]}]
      # GKE, EKS and AKS.
      - matchExpressions: [{key: cloud.google.com/gke-accelerator, operator: Exists}]
      - matchExpressions: [{key: k8s.amazonaws.com/accelerator, operator: Exists}]
      - matchExpressions: [{key: kubernetes.azure.com/accelerator, operator: In, values: [nvidia]}]
{{- end }}
{{- end }}

{{/* Resources, if no value has them. The embedded DCGM needs most of the memory. */}}
{{- define "gpu-exporter.resources" -}}
{{- if .Values.resources }}{{ toYaml .Values.resources }}
{{- else if or (eq .Values.source.type "hostengine") .Values.simulate -}}
requests: {cpu: 20m, memory: 64Mi}
limits: {memory: 128Mi}
{{- else -}}
requests: {cpu: 50m, memory: 128Mi}
limits: {memory: 512Mi}
{{- end }}
{{- end }}

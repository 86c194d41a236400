{{/* Names and labels. Every object of the chart is called by one of these. */}}

{{- define "prism.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* "prism" for a release called prism, else "<release>-prism". At most 40 characters, so that suffixes fit in. */}}
{{- define "prism.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "prism.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "prism.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "prism.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "prism.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "prism.labels" -}}
{{ include "prism.releaseLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "prism.releaseLabels" -}}
app.kubernetes.io/name: {{ include "prism.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The operator's pod and no other: the pods of `helm test` have another component. */}}
{{- define "prism.selectorLabels" -}}
{{ include "prism.releaseLabels" . }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "prism.testLabels" -}}
{{ include "prism.releaseLabels" . }}
app.kubernetes.io/component: test
{{- end -}}

{{/* Given to every stage pod by the operator. */}}
{{- define "prism.stagePodLabels" -}}
app.kubernetes.io/managed-by: prism
{{- end -}}

{{/* Where the chart's policies for stage pods go: a comma separated list. */}}
{{- define "prism.stageNamespaces" -}}
{{- join "," (default .Values.watchNamespaces .Values.stages.networkPolicy.namespaces) -}}
{{- end -}}

{{- define "prism.metricsServiceEnabled" -}}
{{- if or .Values.metrics.service.enabled .Values.metrics.serviceMonitor.enabled }}true{{ end -}}
{{- end -}}

{{/* Whether an object of the Prometheus operator is wanted and possible: (dict "root" $ "object" .Values.metrics.x). */}}
{{- define "prism.monitoringWanted" -}}
{{- if and .object.enabled (or .object.force (.root.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) }}true{{ end -}}
{{- end -}}

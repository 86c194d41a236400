{{/* `helm test`. Its objects are hooks: they exist while it runs, and stay after a failure, to be looked at, until the next time. */}}
{{- define "prism.testHook" -}}
helm.sh/hook: test
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{/* A namespace where runs are carried out. */}}
{{- define "prism.sampleNamespace" -}}
{{- if .Values.watchNamespaces }}{{ first .Values.watchNamespaces }}{{ else }}{{ .Release.Namespace }}{{ end -}}
{{- end -}}

{{/* The rights the operator needs, one verb at a time, from the very rules that its role is made of: JSON for check.py. */}}
{{- define "prism.accessList" -}}
{{- $found := list -}}
{{- $namespaces := default (list "") .Values.watchNamespaces -}}
{{- range $namespace := $namespaces -}}
{{- range $rule := include "prism.operatorRules" $ | fromYamlArray -}}
{{- range $resource := $rule.resources -}}
{{- range $verb := $rule.verbs -}}
{{- $parts := splitList "/" $resource -}}
{{- $access := dict "verb" $verb "group" (first $rule.apiGroups) "resource" (first $parts) "namespace" $namespace -}}
{{- if gt (len $parts) 1 }}{{ $access = set $access "subresource" (last $parts) }}{{ end -}}
{{- $found = append $found $access -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* A pod that runs check.py: (dict "root" $ "which" "operator" "account" "name" "env" (list ...)). */}}
{{- define "prism.testPod" -}}
apiVersion: v1
kind: Pod
metadata:
  name: {{ include "prism.fullname" .root }}-test-{{ .which }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{ include "prism.testLabels" .root | nindent 4 }}
  annotations: {{ include "prism.testHook" 1 | nindent 4 }}
spec:
  serviceAccountName: {{ .account }}
  automountServiceAccountToken: true
  enableServiceLinks: false
  restartPolicy: Never
  {{- with include "prism.placement" .root | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  securityContext: {{ include "prism.podSecurityContext" .root | nindent 4 }}
  containers:
    - name: check
      image: {{ include "prism.image" (dict "root" .root "image" .root.Values.image) }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      command: [python, -B, /checks/check.py, {{ .which }}]
      env: {{ toYaml .env | nindent 8 }}
      resources:
        requests: {cpu: 50m, memory: 64Mi}
        limits: {memory: 128Mi}
      securityContext: {{ include "prism.containerSecurityContext" .root | nindent 8 }}
      volumeMounts:
        - {name: checks, mountPath: /checks, readOnly: true}
  volumes:
    - name: checks
      configMap: {name: {{ include "prism.fullname" .root }}-test}
{{- end -}}

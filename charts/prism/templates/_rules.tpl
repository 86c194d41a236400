{{/* What the operator may do in the namespaces it watches, and nothing beyond: no secrets, no pods/exec, no wildcards. */}}
{{- define "prism.operatorRules" -}}
- apiGroups: [prism.dev]
  resources: [prismruns]
  verbs: [get, list, watch, patch, delete]  # patch: its finalizer; delete: spec.ttlSecondsAfterFinished
- apiGroups: [prism.dev]
  resources: [prismruns/status]
  verbs: [patch]
- apiGroups: [prism.dev]
  resources: [prismruns/finalizers]
  verbs: [update]                           # owner references that block deletion
- apiGroups: [ray.io]
  resources: [rayclusters]
  verbs: [create, get, list, watch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]              # delete: pods of a node that does not answer
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end -}}

{{- define "prism.editRules" -}}
- apiGroups: [prism.dev]
  resources: [prismruns]
  verbs: [create, delete, deletecollection, get, list, patch, update, watch]
- apiGroups: [prism.dev]
  resources: [prismruns/status]
  verbs: [get]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]                              # kubectl prism logs
{{- end -}}

{{- define "prism.viewRules" -}}
- apiGroups: [prism.dev]
  resources: [prismruns, prismruns/status]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]                              # kubectl prism logs
{{- end -}}

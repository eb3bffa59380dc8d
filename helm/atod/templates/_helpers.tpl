{{- define "atod.name" -}}
{{- if contains "atod" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-atod" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* Labels of an object; call with (list . "learner"). */}}
{{- define "atod.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{ include "atod.selector" . }}
{{- end }}

{{- define "atod.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: atod
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* What all pods share; call with (list . "learner" port metricsPort arguments). Port 0: no gRPC server. */}}
{{- define "atod.pod" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
{{- $port := index . 2 -}}
{{- $metrics := index . 3 -}}
{{- $arguments := index . 4 -}}
{{- $values := index $root.Values $part -}}
metadata:
  labels:
    {{- include "atod.labels" (list $root $part) | nindent 4 }}
  annotations:
    checksum/config: {{ include (print $root.Template.BasePath "/configmap.yaml") $root | sha256sum }}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $root.Values.prepare.enabled }}
  initContainers:
    - name: prepare
      {{- include "atod.image" $root | nindent 6 }}
      command: [atod-prepare]
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      volumeMounts:
        - {name: data, mountPath: /var/lib/atod/data}
        - {name: tmp, mountPath: /tmp}
  {{- end }}
  containers:
    - name: {{ $part }}
      {{- include "atod.image" $root | nindent 6 }}
      command: [atod-{{ $part }}]
      args:
        {{- if $root.Values.prepare.enabled }}
        - --config=/etc/atod/embedded.yaml
        {{- end }}
        - --config=/etc/atod/run.yaml
        - --config=/etc/atod/cluster.yaml
        {{- range $arguments }}
        - {{ . }}
        {{- end }}
      ports:
        {{- if $port }}
        - {name: grpc, containerPort: {{ $port }}}
        {{- end }}
        - {name: metrics, containerPort: {{ $metrics }}}
      # Loading a model may take minutes; a slow step must not kill anything.
      startupProbe:
        {{- include "atod.probe" (list $port) | nindent 8 }}
        periodSeconds: 5
        failureThreshold: 360
      # Asks the process itself: a stopped one still takes connections.
      livenessProbe:
        {{- include "atod.probe" (list $port) | nindent 8 }}
        periodSeconds: 20
        timeoutSeconds: 10
        failureThreshold: 6
      readinessProbe:
        {{- include "atod.probe" (list $port) | nindent 8 }}
        periodSeconds: 10
        timeoutSeconds: 5
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/atod, readOnly: true}
        - {name: data, mountPath: /var/lib/atod/data, readOnly: true}
        - {name: tmp, mountPath: /tmp}
        {{- if eq $part "learner" }}
        - {name: runs, mountPath: /var/lib/atod/runs}
        {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "atod.name" $root }}-config
    - name: data
      persistentVolumeClaim:
        claimName: {{ $root.Values.data.existingClaim | default (print (include "atod.name" $root) "-data") }}
    - name: tmp
      emptyDir: {}
{{- end }}

{{- define "atod.probe" -}}
{{- $port := index . 0 -}}
{{- if $port }}
grpc: {port: {{ $port }}}
{{- else }}
httpGet: {path: /metrics, port: metrics}
{{- end }}
{{- end }}

{{- define "atod.image" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* Not empty on Airflow 2. */}}
{{- define "airflow.two" -}}
{{- if semverCompare "<3" .Values.airflowVersion }}yes{{ end }}
{{- end }}

{{- define "airflow.web" -}}
{{- ternary "webserver" "api-server" (not (empty (include "airflow.two" .))) }}
{{- end }}

{{/* What the official chart keeps in a Secret each is in one here, but for the broker's address. */}}
{{- define "airflow.connections" -}}
AIRFLOW__CORE__FERNET_KEY: {{ .Values.fernetKey | quote }}
AIRFLOW__DATABASE__SQL_ALCHEMY_CONN: {{ .Values.data.metadataConnection | quote }}
AIRFLOW__CELERY__RESULT_BACKEND: {{ .Values.data.resultBackendConnection | quote }}
{{- if include "airflow.two" . }}
AIRFLOW__WEBSERVER__SECRET_KEY: {{ .Values.apiSecretKey | quote }}
{{- else }}
AIRFLOW__API__SECRET_KEY: {{ .Values.apiSecretKey | quote }}
AIRFLOW__API_AUTH__JWT_SECRET: {{ .Values.jwtSecret | quote }}
{{- end }}
{{- end }}

{{/* Environment that the official chart gives every Airflow container. */}}
{{- define "airflow.env" -}}
- {name: HOME, value: /root}
- {name: PATH, value: "{{ .Values.machine.environment }}/bin:/usr/local/bin:/usr/bin:/bin"}
- {name: PYTHONUNBUFFERED, value: "1"}
- {name: AIRFLOW_HOME, value: /opt/airflow}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- range $name := keys (fromYaml (include "airflow.connections" .)) | sortAlpha }}
- name: {{ $name }}
  valueFrom: {secretKeyRef: {name: {{ $.Release.Name }}-connections, key: {{ $name }}}}
{{- end }}
- name: AIRFLOW__CELERY__BROKER_URL
  valueFrom: {secretKeyRef: {name: {{ .Release.Name }}-broker-url, key: connection}}
{{- end }}

{{- define "airflow.mounts" -}}
- {name: config, mountPath: /opt/airflow/airflow.cfg, subPath: airflow.cfg, readOnly: true}
- {name: dags, mountPath: /opt/airflow/dags, readOnly: true}
- {name: logs, mountPath: /opt/airflow/logs}
{{- if .Values.webserver.webserverConfig }}
- {name: config, mountPath: /opt/airflow/webserver_config.py, subPath: webserver_config.py, readOnly: true}
{{- end }}
{{- range $number, $folder := .Values.machine.folders }}
- {name: machine-{{ $number }}, mountPath: {{ $folder }}, readOnly: true}
{{- end }}
{{- end }}

{{/*
One Deployment. Takes a dict: root, component, values (of the component), args, and optionally set (name of a worker
set), labels (more pod labels), probe (command of the liveness probe), hostNetwork, port.
*/}}
{{- define "airflow.component" -}}
{{- $root := .root }}
{{- $name := printf "%s-%s" $root.Release.Name .component }}
{{- with .set }}{{ $name = printf "%s-%s" $name . }}{{ end }}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  labels:
    tier: airflow
    component: {{ .component }}
    release: {{ $root.Release.Name }}
    chart: "{{ $root.Chart.Name }}-{{ $root.Chart.Version }}"
    heritage: {{ $root.Release.Service }}
    {{- with .labels }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  replicas: {{ .values.replicas }}
  selector:
    matchLabels: &labels
      tier: airflow
      component: {{ .component }}
      release: {{ $root.Release.Name }}
      {{- with .labels }}{{ toYaml . | nindent 6 }}{{ end }}
  {{- if .values.strategy }}
  strategy: {{ toYaml .values.strategy | nindent 4 }}
  {{- else if .hostNetwork }}
  strategy: {type: Recreate} # two could not listen on one port
  {{- end }}
  template:
    metadata:
      labels: *labels
      annotations:
        checksum/airflow-config: {{ include (print $root.Template.BasePath "/config.yaml") $root | sha256sum }}
    spec:
      terminationGracePeriodSeconds: {{ .values.terminationGracePeriodSeconds }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- if .hostNetwork }}
      hostNetwork: true
      {{- end }}
      initContainers:
        - name: wait-for-airflow-migrations
          image: {{ $root.Values.machine.image }}
          imagePullPolicy: Never
          args: [python, /opt/airflow/wait_for_migrations.py]
          resources: {{ toYaml .values.resources | nindent 12 }}
          env: {{ include "airflow.env" $root | nindent 12 }}
          volumeMounts:
            - {name: config, mountPath: /opt/airflow/wait_for_migrations.py, subPath: wait_for_migrations.py, readOnly: true}
            {{- include "airflow.mounts" $root | nindent 12 }}
      containers:
        - name: {{ .component }}
          image: {{ $root.Values.machine.image }}
          imagePullPolicy: Never
          args: {{ toJson .args }}
          resources: {{ toYaml .values.resources | nindent 12 }}
          {{- if (.values.livenessProbe).enabled }}
          livenessProbe:
            {{- toYaml (omit .values.livenessProbe "enabled") | nindent 12 }}
            exec: {command: {{ toJson .probe }}}
          {{- end }}
          {{- if (.values.readinessProbe).enabled }}
          readinessProbe:
            {{- toYaml (omit .values.readinessProbe "enabled") | nindent 12 }}
            httpGet: {path: {{ ternary "/health" "/api/v2/version" (eq .component "webserver") }}, port: {{ .port }}}
          {{- end }}
          {{- with .port }}
          ports: [{name: {{ $.component }}, containerPort: {{ . }}}]
          {{- end }}
          env:
            {{- include "airflow.env" $root | nindent 12 }}
            {{- with .values.env }}{{ toYaml . | nindent 12 }}{{ end }}
          volumeMounts: {{ include "airflow.mounts" $root | nindent 12 }}
      volumes:
        - {name: config, configMap: {name: {{ $root.Release.Name }}-config}}
        - {name: dags, hostPath: {path: {{ $root.Values.dags.hostPath }}, type: Directory}}
        - {name: logs, hostPath: {path: {{ $root.Values.logs.hostPath }}, type: Directory}}
        {{- range $number, $folder := $root.Values.machine.folders }}
        - {name: machine-{{ $number }}, hostPath: {path: {{ $folder }}, type: Directory}}
        {{- end }}
{{- end }}

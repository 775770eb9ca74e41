"""What the API server would show of a modelled Airflow: its workloads and pods, as plain objects. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_OID, uuid5

Object = dict[str, Any]

RELEASE = "airflow"
MEBIBYTE = 2**20
DEPLOYMENT, STATEFUL = "Deployment", "StatefulSet"
CHECK = {
    "worker": "celery --app airflow.providers.celery.executors.celery_executor.app inspect ping",
    "scheduler": "airflow jobs check --job-type SchedulerJob --local",
    "triggerer": "airflow jobs check --job-type TriggererJob --local",
    "dag-processor": "airflow jobs check --job-type DagProcessorJob --local",
}
"""The liveness probes of the official chart."""

GRACE = {"worker": 600, "scheduler": 10, "triggerer": 60, "dag-processor": 60}
"""Seconds that a pod is given to end, as the official chart has it."""

BACK_OFF = 10.0
"""Seconds before the second restart of a container; the first comes at once, each further one after twice as long."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How the template of a workload is. Memory in MiB, CPU in cores."""

    component: str
    request: int
    limit: int
    cores: float | None = None
    replicas: int = 1
    kind: str = DEPLOYMENT
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the workload."""
        return f"{RELEASE}-{self.component}"

    @property
    def labels(self) -> dict[str, str]:
        """Of the workload and its pods."""
        return {"tier": "airflow", "release": RELEASE, "component": self.component}

    def container(self) -> Object:
        """The main container."""
        limits = {"memory": f"{self.limit}Mi", **({} if self.cores is None else {"cpu": f"{self.cores:g}"})}
        found: Object = {
            "name": self.component,
            "resources": {"requests": {"memory": f"{self.request}Mi"}, "limits": limits},
            "env": [{"name": name, "value": value} for name, value in self.environment.items()],
        }
        if self.component in CHECK:
            command = ["sh", "-c", CHECK[self.component]]
            probe = {"exec": {"command": command}, "timeoutSeconds": 20, "failureThreshold": 5, "periodSeconds": 60}
            found["livenessProbe"] = probe
        return found

    def item(self) -> Object:
        """The Deployment or StatefulSet."""
        spec = {
            "containers": [self.container()],
            "terminationGracePeriodSeconds": GRACE.get(self.component, 30),
        }
        return {
            "kind": self.kind,
            "metadata": {"name": self.name, "labels": {**self.labels, "chart": "airflow-1.22.0"}},
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": self.labels},
                "template": {"metadata": {"labels": self.labels}, "spec": spec},
            },
            "status": {"replicas": self.replicas},
        }


@dataclass(slots=True)
class PlayedPod:
    """A pod. Times are seconds since the epoch."""

    name: str
    shape: Shape
    created: float
    started: float | None = None
    restarts: int = 0
    ended: tuple[str, float] | None = None
    """Why the last container died, and when."""
    evicted: float | None = None
    deleted: float | None = None
    """When somebody asked for it to be deleted."""
    restart_at: float | None = None
    """When the kubelet starts a dead container again; infinite: never."""

    uid: str = ""
    container_id: str = ""

    def __post_init__(self) -> None:
        self.uid = str(uuid5(NAMESPACE_OID, f"{self.name} {self.created}"))
        self._new_container()

    def _new_container(self) -> None:
        self.container_id = (uuid5(NAMESPACE_OID, f"{self.uid} {self.restarts}").hex * 2)[:64]

    @property
    def running(self) -> bool:
        """Its container runs."""
        return self.started is not None and self.evicted is None

    def die(self, why: str, now: float) -> None:
        """Its container dies, and will be started again."""
        self.started, self.ended = None, (why, now)
        self.restart_at = now + (0.0 if not self.restarts else BACK_OFF * 2 ** min(self.restarts - 1, 5))

    def restarted(self, now: float) -> None:
        """Its container begins again."""
        self.restarts, self.started, self.restart_at = self.restarts + 1, now, None
        self._new_container()

    def item(self, *, ready: bool) -> Object:
        """The pod as the API server shows it."""
        shape = self.shape
        reference = {"kind": shape.kind, "name": shape.name, "controller": True}
        labels = dict(shape.labels)
        if shape.kind == DEPLOYMENT:
            reference = {"kind": "ReplicaSet", "name": f"{shape.name}-1", "controller": True}
            labels["pod-template-hash"] = "1"
        metadata: Object = {
            "name": self.name,
            "uid": self.uid,
            "creationTimestamp": _time(self.created),
            "labels": labels,
            "ownerReferences": [reference],
        }
        if self.deleted is not None:
            grace = GRACE.get(shape.component, 30)
            metadata |= {"deletionTimestamp": _time(self.deleted + grace), "deletionGracePeriodSeconds": grace}
        return {"metadata": metadata, "spec": {"containers": [shape.container()]}, "status": self._status(ready=ready)}

    def _status(self, *, ready: bool) -> Object:
        if self.evicted is not None:
            return {
                "phase": "Failed",
                "reason": "Evicted",
                "message": "The node was low on resource: memory. Threshold quantity: 100Mi, available: 80Mi.",
                "conditions": [
                    {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": _time(self.evicted)}
                ],
                "qosClass": "Burstable",
            }
        last: Object = {}
        if self.ended is not None:
            reason, at = self.ended
            last = {"terminated": {"reason": reason, "exitCode": 137, "finishedAt": _time(at)}}
        state = {"running": {"startedAt": _time(self.started)}} if self.started is not None else None
        container = {
            "name": self.shape.component,
            "containerID": f"containerd://{self.container_id}",
            "restartCount": self.restarts,
            "state": state or {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": last,
            **({"resources": self.shape.container()["resources"]} if state else {}),
        }
        condition = {"type": "Ready", "status": "True" if ready else "False"}
        return {
            "phase": "Running",
            "conditions": [condition],
            "containerStatuses": [container],
            "qosClass": "Burstable",
        }


def shapes(line: str, *, slots: int, workers: int, stateful: bool) -> dict[str, Shape]:
    """An Airflow of the official chart with limits that fit it."""
    section = "DAG_PROCESSOR" if line == "3" else "SCHEDULER"
    server = "api-server" if line == "3" else "webserver"
    parsing = {f"AIRFLOW__{section}__MIN_FILE_PROCESS_INTERVAL": "30", f"AIRFLOW__{section}__PARSING_PROCESSES": "2"}
    worker = {"AIRFLOW__CELERY__WORKER_AUTOSCALE": f"{slots},{slots}"}
    # A slot, a task of some size in it, the base, and a probe.
    limit = 512 * -(-(500 + 220 * slots) // 512)
    kind = STATEFUL if stateful else DEPLOYMENT
    return {
        "scheduler": Shape("scheduler", 512, 1024),
        "dag-processor": Shape("dag-processor", 512, 1024, environment=parsing),
        "triggerer": Shape("triggerer", 512, 1024),
        server: Shape(server, 512, 1024),
        "worker": Shape("worker", limit // 2, limit, None, workers, kind, worker),
    }


def changed(shape: Shape, **fields: Any) -> Shape:  # noqa: ANN401 - any field of a shape
    """`shape` with other values; `slots` set the environment."""
    if (slots := fields.pop("slots", None)) is not None:
        fields["environment"] = {"AIRFLOW__CELERY__WORKER_AUTOSCALE": f"{slots},{slots}"}
    return replace(shape, **fields)


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(int(at), UTC):%Y-%m-%dT%H:%M:%SZ}"

"""A namespace with an Airflow release whose pods run only in their status: the tests play the kubelet by hand.

What a kubelet does to pods that matter here is little: say that the container runs and with which resources, say that
it was killed for memory, and put resized values in force. A real one does the same in `tests/node`.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from testbed.controlplane import ControlPlane

Object = dict[str, Any]

LABELS = {"tier": "airflow", "release": "airflow"}
NOWHERE = {"played-by": "tests"}
"""No node has this label: no kubelet of the cluster meddles."""


class PlayedAirflow:
    """The release `airflow` in one namespace of a control plane."""

    def __init__(self, control_plane: ControlPlane, namespace: str) -> None:
        self.control_plane = control_plane
        self.namespace = namespace

    def kubectl(self, *args: str, **options: Any) -> str:  # noqa: ANN401 - handed on
        """Kubectl in this namespace."""
        return self.control_plane.kubectl(f"--namespace={self.namespace}", *args, **options)

    def apply(self, item: Object) -> None:
        """Apply an object."""
        self.kubectl("apply", "-f", "-", input=json.dumps(item))

    def get(self, kind: str, name: str) -> Object:
        """One object."""
        item: Object = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return item

    def deploy(self, component: str, replicas: int, resources: Object, name: str = "", **container: Any) -> None:  # noqa: ANN401 - any field of the container
        """A Deployment as the official chart has it."""
        labels = {**LABELS, "component": component}
        played = {"name": component, "image": "airflow:local", "resources": resources, **container}
        pod = {"containers": [played], "nodeSelector": NOWHERE}
        self.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name or f"airflow-{component}", "labels": labels},
                "spec": {
                    "replicas": replicas,
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": pod},
                },
            }
        )

    def policy(self, mode: str = "Enforce", **spec: Any) -> None:  # noqa: ANN401 - any part of a spec
        """The policy `airflow`."""
        workers = [{"name": "*", "memory": {"min": "256Mi", "max": "4Gi"}}]
        self.apply(
            {
                "apiVersion": "airflow-tuner.dev/v1alpha1",
                "kind": "TuningPolicy",
                "metadata": {"name": "airflow"},
                "spec": {"mode": mode, "airflow": {"release": "airflow"}, "workers": workers, **spec},
            }
        )

    def status(self) -> Object:
        """The policy's status."""
        return dict(self.get("tuningpolicy", "airflow").get("status") or {})

    def pods(self, component: str = "worker") -> list[Object]:
        """The pods of a component, by name."""
        selector = f"tier=airflow,component={component}"
        items = json.loads(self.kubectl("get", "pods", "-l", selector, "-o", "json", "--show-managed-fields"))["items"]
        return sorted(items, key=lambda pod: str(pod["metadata"]["name"]))

    def limits(self, component: str = "worker") -> set[str]:
        """The memory limits in the specs of the pods."""
        return {pod["spec"]["containers"][0]["resources"]["limits"]["memory"] for pod in self.pods(component)}

    def run_all(self, component: str = "worker") -> None:
        """Every pod's container runs, with the resources of its spec in force, as after a kubelet's sync."""
        for pod in self.pods(component):
            self._write(pod, _state(pod, {"running": {"startedAt": _now()}}))

    def kill(self, pod: Object) -> None:
        """The kernel has killed the whole container for memory, and the kubelet has started it again."""
        dead = {"exitCode": 137, "reason": "OOMKilled", "startedAt": _now(), "finishedAt": _now()}
        state = _state(pod, {"running": {"startedAt": _now()}}, born=True)
        self._write(pod, {**state, "lastState": {"terminated": dead}})

    def _write(self, pod: Object, state: Object) -> None:
        ready = {"type": "Ready", "status": "True"}
        body = json.dumps({"status": {"phase": "Running", "conditions": [ready], "containerStatuses": [state]}})
        self.kubectl("patch", "pod", pod["metadata"]["name"], "--subresource=status", "--type=merge", "-p", body)


def _state(pod: Object, state: Object, *, born: bool = False) -> Object:
    container = pod["spec"]["containers"][0]
    old = ((pod.get("status") or {}).get("containerStatuses") or [{"restartCount": 0}])[0]
    restarts = old["restartCount"] + (1 if born else 0)
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": True,
        "restartCount": restarts,
        "containerID": f"containerd://{pod['metadata']['uid']}-{restarts}",
        "state": state,
        "resources": container["resources"],
        **({"lastState": old["lastState"]} if old.get("lastState") else {}),
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def played_airflow(control_plane: ControlPlane, namespace: str) -> Iterator[PlayedAirflow]:
    """A namespace of its own, removed at the end."""
    control_plane.kubectl("create", "namespace", namespace)
    try:
        yield PlayedAirflow(control_plane, namespace)
    finally:
        control_plane.kubectl("delete", "namespace", namespace, "--wait=false")

"""A virtual Airflow on a real control plane: its chart by real Helm, its pods on a virtual node; no root needed."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from airflow_tuner.fleet import Deployment
from testbed.airflow_lines import CHART
from testbed.controlplane import ControlPlane
from testbed.helm import helm
from testbed.processes import Area, ProgramFailed
from testbed.programs import build
from testbed.prometheus import Prometheus
from testbed.telling import say
from testbed.virtual_node import VirtualNode

NAMESPACE, RELEASE = "airflow", "airflow"
PROGRAMS = ("control-plane", "helm", "prometheus")
READY_SECONDS = 60.0
NOWHERE: dict[str, Any] = {
    "machine": {"address": "127.0.0.1", "environment": "/opt/airflow"},
    "dags": {"hostPath": "/opt/airflow/dags"},
    "logs": {"hostPath": "/opt/airflow/logs"},
}
"""Facts of a machine, which virtual containers do not look at."""
PARSING = {"MIN_FILE_PROCESS_INTERVAL": "10", "REFRESH_INTERVAL": "5"}
"""Seconds between two parses of a file, and between two looks for new files: people wait for both in a demo."""


@dataclass(frozen=True)
class VirtualAirflow:
    """The parts of a running virtual Airflow. Touch the fleet only within `node.ask`."""

    area: Area
    control_plane: ControlPlane
    node: VirtualNode
    fleet: Deployment
    prometheus: Prometheus
    namespace: str = NAMESPACE

    def kubectl(self, *words: str, **options: Any) -> str:  # noqa: ANN401 - handed on
        """Kubectl in Airflow's namespace."""
        return self.control_plane.kubectl(f"--namespace={self.namespace}", *words, **options)

    def pods(self, component: str) -> list[dict[str, Any]]:
        """The pods of a component, by name; those that are ending are left out."""
        words = ("get", "pods", f"--selector=component={component}", "--output=json")
        found = [pod for pod in json.loads(self.kubectl(*words))["items"] if "deletionTimestamp" not in pod["metadata"]]
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    def policy_status(self) -> dict[str, Any]:
        """The status of the policy `airflow`."""
        return dict(json.loads(self.kubectl("get", "tuningpolicy", "airflow", "--output=json")).get("status") or {})

    def states(self, run: str) -> dict[str, int]:
        """How many tasks of a run are in which state."""
        return self.node.ask(lambda: self.fleet.states(run))

    def ready(self) -> bool:
        """Every pod's container does its work."""
        pods = json.loads(self.kubectl("get", "pods", "--output=json"))["items"]
        names = [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        return bool(names) and self.node.ask(lambda: all(self.fleet.ready(name) for name in names))

    def wait_until(self, check: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait until it holds; ProgramFailed after so many seconds."""
        deadline = time.monotonic() + seconds
        while not check():
            if time.monotonic() > deadline:
                raise ProgramFailed(f"waited {seconds:g} s in vain until {what}")
            time.sleep(0.3)


def release_values(workers: int, slots: int, limit: int) -> dict[str, Any]:
    """Values of the Airflow chart: so many workers of so many slots, and memory as somebody guessed it, in MiB."""
    fixed = {"resources": {"requests": {"memory": "256Mi"}, "limits": {"memory": "512Mi"}}}
    # The model reads a container's environment, and no airflow.cfg.
    concurrency = [{"name": "AIRFLOW__CELERY__WORKER_CONCURRENCY", "value": str(slots)}]
    parsing = [{"name": f"AIRFLOW__DAG_PROCESSOR__{name}", "value": value} for name, value in PARSING.items()]
    worker = {"requests": {"memory": f"{min(512, limit)}Mi"}, "limits": {"memory": f"{limit}Mi"}}
    return {
        **NOWHERE,
        "workers": {"replicas": workers, "resources": worker, "env": concurrency},
        **dict.fromkeys(("scheduler", "triggerer", "apiServer"), fixed),
        "dagProcessor": {**fixed, "env": parsing},
    }


@contextmanager
def virtual_airflow(
    fleet: Deployment,
    values: Mapping[str, Any],
    *,
    audit: bool = False,
    **node: Any,  # noqa: ANN401 - of VirtualNode
) -> Iterator[VirtualAirflow]:
    """Start all of it with these values of the Airflow chart, and leave nothing behind. Says what it starts."""
    Area.sweep()
    build(PROGRAMS)
    with ExitStack() as stack:
        area = Area("virtual")
        stack.callback(area.clean)
        with _told("the control plane"):
            control_plane = stack.enter_context(ControlPlane(area, audit=audit))
        control_plane.kubectl("create", "namespace", NAMESPACE)
        virtual = stack.enter_context(VirtualNode(area, control_plane, fleet, namespace=NAMESPACE, **node))
        prometheus = stack.enter_context(Prometheus(area, virtual.scrape_configs("2s"), interval="2s"))
        airflow = VirtualAirflow(area, control_plane, virtual, fleet, prometheus)
        with _told("a virtual Airflow, until all its containers work"):
            file = area.path / "airflow-values.json"
            file.write_text(json.dumps(values))
            helm(control_plane, "install", RELEASE, CHART, f"--namespace={NAMESPACE}", f"--values={file}")
            airflow.wait_until(airflow.ready, "all containers work", READY_SECONDS)
        yield airflow
        started = time.monotonic()
    say(f"testbed: all stopped in {time.monotonic() - started:.1f} s")


@contextmanager
def _told(what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    say(f"testbed: started {what}: {time.monotonic() - started:.1f} s")

"""Everything together: control plane, real node, PostgreSQL, Redis, Airflow, StatsD exporter, Prometheus."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from testbed.airflow import Airflow
from testbed.airflow_environment import airflow_environment
from testbed.airflow_lines import AIRFLOW_3, Line
from testbed.controlplane import ControlPlane
from testbed.node import Node
from testbed.processes import Area
from testbed.programs import build
from testbed.prometheus import Prometheus, StatsdExporter
from testbed.services import Services

MAPPING = Path(__file__).parent / "statsd-mapping.yaml"
PROGRAMS = ("control-plane", "pause", "kubelet", "helm", "statsd_exporter", "prometheus")


@dataclass(frozen=True)
class RealAirflow:
    """The parts of a running real Airflow."""

    area: Area
    control_plane: ControlPlane
    node: Node
    services: Services
    exporter: StatsdExporter
    prometheus: Prometheus
    airflow: Airflow

    def policy(self) -> dict[str, Any]:
        """The TuningPolicy `airflow` beside the release."""
        words = ("get", "tuningpolicy", "airflow", f"--namespace={self.airflow.namespace}", "--output=json")
        return dict(json.loads(self.control_plane.kubectl(*words)))

    def policy_status(self) -> dict[str, Any]:
        """Its status."""
        return dict(self.policy().get("status") or {})


@contextmanager
def real_airflow(
    values: Mapping[str, Any] | None = None,
    *,
    line: Line = AIRFLOW_3,
    scrape_interval: str = "5s",
    audit: bool = False,
    past: Callable[[datetime], str] | None = None,
) -> Iterator[RealAirflow]:
    """Start all of it with these values of the Airflow chart, and leave nothing behind.

    Takes about a minute once everything is built; raises ProgramFailed with the sentence of `node.what_is_missing`
    where this machine cannot. Says on standard error what it starts. Prometheus remembers what `past` makes of the
    present, in OpenMetrics.
    """
    Area.sweep()
    build((*PROGRAMS, *(["promtool"] if past else [])))
    airflow_environment(line)
    with ExitStack() as stack:
        area = Area("node")
        stack.callback(area.clean)
        control_plane = ControlPlane(area, extra_addresses=[Node.address], node=Node.name, audit=audit)
        node = Node(area, control_plane)
        stack.callback(node.stop)
        node.prepare()
        with _told("PostgreSQL, Redis and the StatsD exporter"):
            services = stack.enter_context(Services(area, node.home / "postgresql", node.address))
            exporter = stack.enter_context(StatsdExporter(area, MAPPING, address=node.address))
        airflow = Airflow(node, services, exporter, line)
        with _told("the control plane"):
            stack.enter_context(control_plane)
        with _told("containerd and kubelet, until the node is Ready"):
            node.start()
        prometheus = Prometheus(area, scrape_configs(node, exporter, scrape_interval), address=node.address)
        if past is not None:
            prometheus.remember(past(datetime.now(UTC)))
        stack.enter_context(prometheus)
        with _told(f"Airflow {line.version}, until all five components work"):
            airflow.start(values)
        yield RealAirflow(area, control_plane, node, services, exporter, prometheus, airflow)
        started = time.monotonic()
    _say(f"testbed: all stopped in {time.monotonic() - started:.1f} s")


def scrape_configs(node: Node, exporter: StatsdExporter, interval: str = "5s") -> list[Mapping[str, Any]]:
    """Return Prometheus' scrape configs for the node's cAdvisor and for Airflow's StatsD exporter."""
    target = exporter.url.removeprefix("http://")
    airflow = {"job_name": "airflow", "scrape_interval": interval, "static_configs": [{"targets": [target]}]}
    return [*node.scrape_configs(interval), airflow]


@contextmanager
def _told(what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    _say(f"testbed: started {what}: {time.monotonic() - started:.1f} s")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()

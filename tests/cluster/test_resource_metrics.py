"""metrics.k8s.io through a real API server's aggregation layer, asked with exactly the chart's rights.

metrics-server is the real one. What is played is the kubelet that it asks, as the pods here run in their status alone;
and, where the API is to fail, the server behind it.
"""

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from airflow_tuner import api, resource_metrics
from airflow_tuner.cluster import Cluster
from airflow_tuner.model import MetricsState, Observation
from airflow_tuner.observe import observe
from airflow_tuner.prometheus import Prometheus
from airflow_tuner.resource_metrics import Current
from airflow_tuner.settings import Source
from cluster.faults import condition, eventually
from edges.servers import serving
from testbed import operator_process
from testbed.controlplane import ControlPlane
from testbed.metrics_server import API, available, metrics_server, registered, serving_metrics
from testbed.operator_process import NAMESPACE, RELEASE, Operator
from testbed.played_airflow import LABELS, PlayedAirflow, played_airflow
from testbed.processes import Area, free_port
from testbed.programs import CannotBuild

MEBIBYTE = 2**20
NOWHERE = "http://127.0.0.1:9"
RESOURCES = {"requests": {"memory": "512Mi"}, "limits": {"memory": "700Mi"}}
DISCOVERY = {
    "kind": "APIResourceList",
    "apiVersion": "v1",
    "groupVersion": "metrics.k8s.io/v1beta1",
    "resources": [
        {"name": "pods", "singularName": "", "namespaced": True, "kind": "PodMetrics", "verbs": ["get", "list"]}
    ],
}
"""What such a server says when it is asked what it serves: it counts as available."""


@dataclass(frozen=True)
class Place:
    """An Airflow whose metrics no Prometheus has, and the way to its API server with the chart's rights."""

    area: Area
    plane: ControlPlane
    airflow: PlayedAirflow
    kubeconfig: Path

    def ask(self, kubeconfig: Path | None = None) -> tuple[Current, float]:
        """What metrics.k8s.io says, and after how many seconds."""

        async def run() -> tuple[Current, float]:
            async with await Cluster.connect(kubeconfig or self.kubeconfig) as cluster:
                await cluster.list(f"/api/v1/namespaces/{self.airflow.namespace}/pods", {})
                begun = time.monotonic()
                found = await resource_metrics.ask(cluster, self.airflow.namespace, LABELS)
                return found, time.monotonic() - begun

        return asyncio.run(run())


@pytest.fixture(scope="module")
def place(needs: Callable[..., None]) -> Iterator[Place]:
    """A control plane of its own: an API that does not answer keeps namespaces from being deleted."""
    needs("control-plane", "helm")
    area = Area("resource-metrics")
    try:
        with ControlPlane(area, aggregates=True) as plane, played_airflow(plane, "unseen") as airflow:
            operator_process.install_chart(plane, NOWHERE)
            kubeconfig = plane.kubeconfig_for_service_account(NAMESPACE, RELEASE, area.path / "chart.kubeconfig")
            airflow.deploy("worker", 2, RESOURCES)
            eventually(lambda: len(airflow.pods()) == 2, "the pods")
            airflow.run_all()
            yield Place(area, plane, airflow, kubeconfig)
    finally:
        area.clean()


@contextmanager
def over_tls(plane: ControlPlane, answer: Callable[[str], tuple[int, str]]) -> Iterator[int]:
    """A server on a port of this machine; `answer`: from a path to a status and a text."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", "application/json" if text.startswith("{") else "text/plain")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *words: object) -> None:  # noqa: A002 - the base's signature
            pass

    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trust.load_cert_chain(plane.pki / "apiserver.crt", plane.pki / "apiserver.key")
    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    listener.handle_error = lambda *_: None  # type: ignore[method-assign] # a client that hung up is no news
    listener.socket = trust.wrap_socket(listener.socket, server_side=True)
    thread = Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield listener.server_port
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


@contextmanager
def a_node(place: Place, memory: int, cores: float) -> Iterator[None]:
    """A node whose kubelet says that each worker holds so much and uses so many cores."""
    begun = time.time() - 600

    def resource_metrics_of_kubelet(_path: str) -> tuple[int, str]:
        now = time.time()
        at, lines = round(now * 1000), []
        for pod in place.airflow.pods():
            labels = f'container="worker",namespace="{place.airflow.namespace}",pod="{pod["metadata"]["name"]}"'
            lines += [
                f"container_start_time_seconds{{{labels}}} {begun}",
                f"container_cpu_usage_seconds_total{{{labels}}} {cores * (now - begun)} {at}",
                f"container_memory_working_set_bytes{{{labels}}} {memory} {at}",
            ]
        lines += [
            f"node_cpu_usage_seconds_total {now - begun} {at}",
            f"node_memory_working_set_bytes {2 * memory} {at}",
        ]
        return 200, "\n".join(lines) + "\n"

    with over_tls(place.plane, resource_metrics_of_kubelet) as port:
        node: dict[str, Any] = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "played"}}
        place.plane.kubectl("apply", "-f", "-", input=json.dumps(node))
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        patch = ["--subresource=status", "--type=merge", "-p", json.dumps({"status": status})]
        place.plane.kubectl("patch", "node", "played", *patch)
        try:
            yield
        finally:
            place.plane.kubectl("delete", "node", "played")


def test_a_cluster_without_that_api_is_told_at_once(place: Place) -> None:
    found, seconds = place.ask()
    assert found == Current(problem="this cluster does not have that API (metrics-server serves it)")
    assert seconds < 1


def test_a_server_that_is_gone_is_told_at_once(place: Place) -> None:
    with registered(place.plane, free_port()):
        eventually(
            lambda: "FailedDiscoveryCheck" in place.plane.kubectl("get", "apiservice", API), "the API server to look"
        )
        found, seconds = place.ask()
    assert found == Current(problem="the server behind that API does not answer")
    assert seconds < 1


def test_a_server_that_takes_its_time_delays_a_turn_by_two_seconds_at_most(place: Place) -> None:
    ended = Event()

    def slow(path: str) -> tuple[int, str]:
        if "/namespaces/" in path:
            ended.wait(30)
        return 200, json.dumps(DISCOVERY)

    with over_tls(place.plane, slow) as port, registered(place.plane, port):
        eventually(lambda: available(place.plane), "the API server to think it well")
        found, seconds = place.ask()
        ended.set()
    assert found == Current(problem="it did not answer within 2 s")
    assert 2 <= seconds < 2.5


def test_a_server_that_says_something_else_tells_nothing_and_breaks_nothing(place: Place) -> None:
    for text in ('{"items": "many"}', '{"items": 7}', '{"items": [{"containers": 3}]}', "[]", "no json"):

        def odd(path: str, text: str = text) -> tuple[int, str]:
            return 200, text if "/namespaces/" in path else json.dumps(DISCOVERY)

        with over_tls(place.plane, odd) as port, registered(place.plane, port):
            eventually(lambda: available(place.plane), "the API server to think it well")
            assert not place.ask()[0].usages


def test_it_is_asked_once_a_turn_and_only_where_the_metrics_source_knows_no_container(place: Place) -> None:
    spec = api.Spec.model_validate({"airflow": {"release": "airflow"}})

    def turn(source: Prometheus | None) -> tuple[Observation, int]:
        async def run() -> tuple[Observation, int]:
            async with await Cluster.connect(place.kubeconfig) as cluster:
                seen = await observe(cluster, source, None, spec, place.airflow.namespace, datetime.now(UTC))
                return seen, cluster.calls

        return asyncio.run(run())

    def answering(*series: dict[str, str]) -> str:
        found = [{"metric": labels, "value": [time.time(), str(time.time())]} for labels in series]
        return json.dumps({"status": "success", "data": {"resultType": "vector", "result": found}})

    pod = {"pod": place.airflow.pods()[0]["metadata"]["name"], "container": "worker"}
    with serving(answering(pod)) as knows, serving(answering()) as empty:
        seen, usual = turn(Prometheus("knows", Source(url=knows.url)))
        assert (seen.metrics.state, usual) == (MetricsState.FRESH, 3)
        for source in (Prometheus("empty", Source(url=empty.url)), Prometheus("gone", Source(url=NOWHERE)), None):
            seen, calls = turn(source)
            assert calls == usual + 1
            assert "Nor does metrics.k8s.io tell anything: this cluster does not have that API" in seen.metrics.message


def test_without_the_right_it_is_told_that_it_is_missing(place: Place) -> None:
    namespace = place.airflow.namespace
    rights = ["--verb=list", "--resource=pods"]
    place.airflow.kubectl("create", "role", "pods-alone", *rights)
    place.airflow.kubectl(
        "create", "rolebinding", "pods-alone", "--role=pods-alone", f"--serviceaccount={namespace}:default"
    )
    other = place.plane.kubeconfig_for_service_account(namespace, "default", place.area.path / "other.kubeconfig")
    found, _ = place.ask(other)
    assert found == Current(problem="the operator may not read it (list of pods in that group)")


def test_the_operator_says_what_metrics_server_knows_and_changes_nothing_for_it(
    place: Place, request: pytest.FixtureRequest
) -> None:
    capture = request.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            metrics_server()
    except CannotBuild as error:
        pytest.skip(str(error).splitlines()[0])
    airflow = place.airflow
    airflow.policy()
    with a_node(place, 600 * MEBIBYTE, 0.25), serving_metrics(place.area, place.plane):
        eventually(lambda: len(place.ask()[0].usages) == 2, "metrics-server's second look", seconds=60)
        found, seconds = place.ask()
        for usage in found.usages.values():
            assert usage.momentary
            assert usage.working_set is not None
            assert usage.working_set.value == 600 * MEBIBYTE
            assert usage.cpu is not None
            assert usage.cpu.value == pytest.approx(0.25, abs=0.02)
            assert abs(time.time() - usage.working_set.at.timestamp()) < 60
        assert seconds < 1
        with Operator(place.area, place.plane, NOWHERE, [airflow.namespace]) as operator:
            eventually(lambda: bool(airflow.status()), f"a first turn\n{operator.log()}")
            told = condition(airflow, "MetricsAvailable")
            assert (told["status"], told["reason"]) == ("False", "CurrentOnly"), operator.log()
            assert "Only current memory and CPU of 2 pods are known, from metrics.k8s.io: kills of" in told["message"]
            assert "Traceback" not in operator.log()
    assert airflow.limits() == {"700Mi"}

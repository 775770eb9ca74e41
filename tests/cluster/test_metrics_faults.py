"""The metrics source fails in every way it can, under a running operator: it is said once, and nothing rests on it."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil
import pytest

from cluster import faults
from cluster.faults import Stage, Writes, condition, events, eventually
from cluster.fronts import Answer, Fault, MetricsFront, before_prometheus
from edges.servers import Server, serving
from testbed.played_airflow import PlayedAirflow, played_airflow
from testbed.prometheus import Prometheus

MEBIBYTE = 2**20
SERIES = {"metric": {"namespace": "n", "pod": "p", "container": "worker"}, "value": [0, "1"]}
EMPTY = {"status": "success", "data": {"resultType": "vector", "result": []}}
HUGE = 48 * MEBIBYTE
MOST_GROWTH = 200 * MEBIBYTE
"""Of the operator's memory; the chart gives it 256 MiB."""


@dataclass(frozen=True)
class Play:
    """The stage with its metrics."""

    stage: Stage
    prometheus: Prometheus
    front: MetricsFront
    exporter: Server
    elsewhere: Server
    """Where a redirect would lead."""

    def show(self, airflow: PlayedAirflow, kills: int = 0) -> None:
        """What cAdvisor would say of the workers; `kills`: processes that the kernel killed in each."""
        lines = []
        for pod in airflow.pods():
            container = pod["status"]["containerStatuses"][0]["containerID"].partition("://")[2]
            labels = f'namespace="{airflow.namespace}",pod="{pod["metadata"]["name"]}",container="worker"'
            labels += f',name="{container}",id="/kubepods/{container}"'
            lines += [
                f"container_oom_events_total{{{labels}}} {kills}",
                f"container_memory_max_usage_bytes{{{labels}}} {690 * MEBIBYTE}",
                f"container_memory_working_set_bytes{{{labels}}} {600 * MEBIBYTE}",
            ]
        self.exporter.body = "\n".join(lines) + "\n"
        if self.prometheus.program.running():
            begun = len(self.exporter.asked)
            eventually(lambda: len(self.exporter.asked) > begun + 1, "two scrapes")


@pytest.fixture(scope="module")
def play(needs: Callable[..., None], prometheus_factory: Callable[..., Prometheus]) -> Iterator[Play]:
    """The operator for the namespaces of all tests here, and a Prometheus behind a front."""
    needs("control-plane", "helm", "prometheus")
    text = {"Content-Type": "text/plain; version=0.0.4"}
    with serving("", headers=text) as exporter, serving(json.dumps(EMPTY)) as elsewhere:
        target = exporter.url.removeprefix("http://")
        prometheus = prometheus_factory([{"job_name": "cadvisor", "static_configs": [{"targets": [target]}]}])
        with before_prometheus(prometheus.url) as front:
            names = [f"metrics-{name}" for name in NAMES]
            with faults.staged("metrics-faults", front.url, names) as stage:
                yield Play(stage, prometheus, front, exporter, elsewhere)


@dataclass(frozen=True)
class Case:
    """One way to fail."""

    begin: Callable[[Play], None]
    says: str
    """What the condition's message has in it."""
    reason: str = "MetricsUnavailable"
    end: Callable[[Play], None] = lambda play: _behave(play, None)


def _behave(play: Play, fault: Fault | None) -> None:
    play.front.fault = fault


def _start(play: Play) -> None:
    play.prometheus.start()


def _by(fault: Fault) -> Callable[[Play], None]:
    return lambda play: _behave(play, fault)


def _answering(answer: Callable[[], Answer]) -> Callable[[Play], None]:
    return _by(lambda _promql, _real: answer())


def _slow(_promql: str, real: Callable[[], bytes]) -> Answer:
    time.sleep(3)
    return Answer(body=real())


def _drip() -> Iterator[bytes]:
    yield b'{"status": "success"'
    while True:
        time.sleep(0.1)
        yield b" "


def _rewritten(change: Callable[[str, str], str], warnings: tuple[str, ...] = ()) -> Fault:
    """The real answer with other values; `change`: from a question and a value."""

    def rewrite(promql: str, real: Callable[[], bytes]) -> Answer:
        answer = json.loads(real())
        for series in answer["data"]["result"]:
            series["value"][1] = change(promql, series["value"][1])
        if warnings:
            answer["warnings"] = list(warnings)
        return Answer(body=json.dumps(answer).encode())

    return rewrite


def _old(promql: str, value: str) -> str:
    return str(float(value) - 7200) if promql.startswith("timestamp(") else value


def _huge() -> Answer:
    one = json.dumps(SERIES).encode() + b","
    head = b'{"status":"success","data":{"resultType":"vector","result":['
    return Answer(body=(head, *([one * 1000] * (HUGE // len(one) // 1000)), one[:-1], b"]}}"))


def _redirect(play: Play) -> None:
    where = {"Location": f"{play.elsewhere.url}/api/v1/query"}
    play.front.fault = lambda _promql, _real: Answer(307, b"", where)


CASES = {
    "stopped": Case(lambda play: play.prometheus.stop(), "no connection", end=_start),
    "unavailable": Case(_answering(lambda: Answer(503, b"upstream is down")), "status 503"),
    "slow": Case(_by(_slow), "no answer in time"),
    "endless": Case(_answering(lambda: Answer(body=_drip())), "no answer in time"),
    "html": Case(_answering(lambda: Answer(body=b"<html>Please sign in</html>")), "another form"),
    "nan": Case(_by(_rewritten(lambda _promql, _value: "NaN")), "no container metrics of these pods"),
    "infinite": Case(_by(_rewritten(lambda _promql, _value: "+Inf")), "no container metrics of these pods"),
    "partial": Case(_by(_rewritten(lambda _promql, value: value, ("a store did not answer",))), "incomplete"),
    "old": Case(_by(_rewritten(_old)), "newest container metrics are of", "MetricsStale"),
    "redirected": Case(_redirect, "status 307"),
    "huge": Case(_answering(_huge), "too large"),
}
NAMES = [*CASES, "unattended", "promql-warnings"]


@pytest.fixture
def airflow(play: Play, request: pytest.FixtureRequest) -> Iterator[PlayedAirflow]:
    """Two workers under a policy, with metrics that are fresh."""
    with played_airflow(play.stage.control_plane, f"metrics-{request.param}") as airflow:
        faults.deployed(airflow, 2)
        play.show(airflow)
        airflow.policy()
        try:
            eventually(lambda: available(airflow) == "True", lambda: f"all is well\n{play.stage.operator.log()}")
            yield airflow
        finally:
            _behave(play, None)
            airflow.kubectl("delete", "tuningpolicy", "airflow")


def available(airflow: PlayedAirflow) -> str:
    """The condition's status."""
    return str(condition(airflow, "MetricsAvailable").get("status", ""))


@pytest.mark.parametrize(("airflow", "name"), [(name, name) for name in CASES], indirect=["airflow"], ids=[*CASES])
def test_a_source_that_fails_is_said_once_and_nothing_rests_on_it(
    name: str, play: Play, airflow: PlayedAirflow
) -> None:
    case, log = CASES[name], play.stage.operator.log
    process = psutil.Process(play.stage.operator.program.pid)
    size, elsewhere = process.memory_info().rss, len(play.elsewhere.asked)
    writes = Writes(play.stage.control_plane)

    case.begin(play)
    begun = time.monotonic()
    faults.touch(airflow)
    eventually(lambda: available(airflow) == "False", lambda: f"it is said\n{log()}")
    said = time.monotonic() - begun
    message = condition(airflow, "MetricsAvailable")["message"]
    assert case.says in message
    assert "Please sign in" not in message
    play.show(airflow, kills=3)
    faults.touch(airflow)
    eventually(lambda: events(airflow, case.reason), lambda: f"an Event\n{log()}")
    assert faults.times(events(airflow, case.reason)) == 1, "two turns have seen it, and it was told once"
    assert airflow.limits() == {"700Mi"}
    assert writes.acts() == set(), "killed processes that cannot be seen are not guessed"

    airflow.kill(airflow.pods()[0])
    eventually(lambda: airflow.limits() == {"1050Mi"}, lambda: f"a killed container is answered\n{log()}")
    assert writes.acts() == {"patch pods/resize"}
    assert {change["reason"] for change in airflow.status()["history"]} == {"OutOfMemory"}
    assert available(airflow) == "False"
    assert len(play.elsewhere.asked) == elsewhere, "no request reaches where a redirect leads"
    grown = process.memory_info().rss - size
    assert grown < MOST_GROWTH
    written = writes.counted()

    airflow.run_all()
    case.end(play)
    play.show(airflow)
    begun = time.monotonic()
    faults.touch(airflow)
    eventually(lambda: available(airflow) == "True", lambda: f"it is over\n{log()}")
    recovered = time.monotonic() - begun
    eventually(lambda: faults.times(events(airflow, "FindingEnded")), "an Event says so")
    assert f"{case.reason} is over" in str(events(airflow, "FindingEnded"))
    assert airflow.limits() == {"1050Mi"}, "nothing is lowered"
    assert "Traceback" not in log()
    faults.note(f"metrics-{name}", said=said, recovered=recovered, writes=written, seen=message)


@pytest.mark.parametrize("airflow", ["unattended"], indirect=True)
def test_where_nobody_asks_for_a_turn_then_a_fault_and_its_end_are_said_all_the_same(
    play: Play, airflow: PlayedAirflow
) -> None:
    writes = Writes(play.stage.control_plane)
    _behave(play, lambda _promql, _real: Answer(503))
    said = eventually(lambda: available(airflow) == "False", lambda: f"it is said\n{play.stage.operator.log()}", 60)
    message = condition(airflow, "MetricsAvailable")["message"]
    _behave(play, None)
    over = eventually(lambda: available(airflow) == "True", lambda: f"it is over\n{play.stage.operator.log()}", 60)
    assert writes.acts() == set()
    faults.note("metrics-unattended", said=said, recovered=over, writes=writes.counted(), seen=message)


@pytest.mark.parametrize("airflow", ["promql-warnings"], indirect=True)
def test_what_prometheus_remarks_on_a_question_is_no_reason_to_distrust_its_answer(
    play: Play, airflow: PlayedAirflow
) -> None:
    remarks = ("PromQL info: metric might not be a counter", "PromQL warning: a mix of histograms and floats")
    _behave(play, _rewritten(lambda _promql, value: value, remarks))
    faults.touch(airflow)
    assert available(airflow) == "True"

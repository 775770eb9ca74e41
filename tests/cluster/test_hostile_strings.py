"""Whoever may write a policy, a pod or a series may write anything into it: it is told plainly, and not obeyed."""

import json
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cluster import faults
from cluster.faults import Stage, Writes, condition, eventually
from cluster.fronts import Answer, MetricsFront, before_prometheus
from edges.servers import Server, serving
from testbed.loopback import fetch
from testbed.played_airflow import PlayedAirflow, played_airflow
from testbed.prometheus import Prometheus

Object = dict[str, Any]

LONG = "a" * 100_000
ESCAPES = "\x1b[2J\x1b[31mred\x07"
BIDI = "\u202egpj.exe\u2066\u200f"
TEXTS = {
    "promql": 'x"} or vector(1) or up{job="',
    "backslash": 'x\\"} or up{a="\\',
    "lines": "one\ntwo\r\nthree\u2028four",
    "escapes": ESCAPES,
    "shell": "$(touch /tmp/x) `id` ${HOME} $window $$",
    "templates": "{{ .Values }} %s %d {0} {x}",
    "directions": BIDI,
    "quotes": '\'"\'\'"""',
}
LONGEST = 1024
NAMES = ("questions", "keys", "release", "pods", "words", "series")


@pytest.fixture(scope="module")
def exporter() -> Iterator[Server]:
    """What Prometheus scrapes."""
    with serving("", headers={"Content-Type": "text/plain; version=0.0.4"}) as exporter:
        yield exporter


@pytest.fixture(scope="module")
def prometheus(exporter: Server, prometheus_factory: Callable[..., Prometheus]) -> Prometheus:
    """A real one."""
    target = exporter.url.removeprefix("http://")
    return prometheus_factory([{"job_name": "cadvisor", "static_configs": [{"targets": [target]}]}])


@pytest.fixture(scope="module")
def front(prometheus: Prometheus) -> Iterator[MetricsFront]:
    """What the operator asks."""
    with before_prometheus(prometheus.url) as front:
        yield front


@pytest.fixture(scope="module")
def stage(needs: Callable[..., None], front: MetricsFront) -> Iterator[Stage]:
    """The operator for the namespaces of all tests here."""
    needs("control-plane", "helm", "prometheus")
    with faults.staged("hostile-strings", front.url, [f"hostile-{name}" for name in NAMES]) as stage:
        yield stage


@pytest.fixture
def airflow(stage: Stage, request: pytest.FixtureRequest) -> Iterator[PlayedAirflow]:
    """One worker, in a namespace named for the test's parameter."""
    with played_airflow(stage.control_plane, f"hostile-{request.param}") as airflow:
        faults.deployed(airflow)
        yield airflow
        airflow.kubectl("delete", "tuningpolicy", "airflow", "--ignore-not-found")
    assert "Traceback" not in stage.operator.log()
    assert stage.operator.program.running()


def turned(stage: Stage, played: PlayedAirflow, /, **spec: Any) -> Object:  # noqa: ANN401 - any part of a spec
    """The status after a turn with this spec."""
    played.policy(**spec)
    wanted = played.get("tuningpolicy", "airflow")["metadata"]["generation"]
    eventually(
        lambda: played.status().get("observedGeneration", 0) >= wanted,
        lambda: f"a turn\n{stage.operator.log()[-9999:]}",
    )
    return played.status()


def strings(value: object) -> Iterator[str]:
    """Every string in it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


def assert_plain(status: Object, lines: str = "") -> None:
    """What people read is bounded, and moves no cursor."""
    told = {key: value for key, value in status.items() if key != "helmValues"}
    assert all(len(text) <= LONGEST for text in strings(told))
    # What admission compares with templates is what stands there.
    told.pop("tuned", None)
    assert [text for text in strings(told) if not text.isprintable()] == []
    assert all(line.isprintable() for line in lines.split("\n")), "nor does the log"


def selectors(prometheus: Prometheus, promql: str) -> Iterator[list[tuple[str, str, str]]]:
    """The matchers of every selector of series in a question, as Prometheus itself reads it."""
    query = urllib.parse.urlencode({"query": promql})

    def walk(node: object) -> Iterator[list[tuple[str, str, str]]]:
        if isinstance(node, dict):
            if node.get("type") in {"vectorSelector", "matrixSelector"}:
                yield [(one["name"], one["type"], one["value"]) for one in node["matchers"]]
            for inner in node.values():
                yield from walk(inner)
        elif isinstance(node, list):
            for inner in node:
                yield from walk(inner)

    yield from walk(json.loads(fetch(f"{prometheus.url}/api/v1/parse_query?{query}"))["data"])


@pytest.mark.parametrize("airflow", ["questions"], indirect=True)
def test_match_labels_stay_values_and_the_namespace_stays_whole(
    stage: Stage, prometheus: Prometheus, front: MetricsFront, airflow: PlayedAirflow
) -> None:
    for text in TEXTS.values():
        begun = len(front.asked)
        status = turned(
            stage, airflow, metrics={"matchLabels": {"cluster": text, "namespace": f"kube-system{text}"[:63]}}
        )
        assert_plain(status, stage.operator.log())
        asked = set(front.asked[begun:])
        # A question that was under way has the text of before.
        asked = {one for one in asked if any(("cluster", "=", text) in found for found in selectors(prometheus, one))}
        assert asked
        for question in asked:
            found = list(selectors(prometheus, question))
            assert found
            for matchers in found:
                assert [one[2] for one in matchers if one[0] == "namespace"] == [airflow.namespace]
                assert ("cluster", "=", text) in matchers
                assert {one[0] for one in matchers} <= {"__name__", "cluster", "namespace", "container"}


@pytest.mark.parametrize("airflow", ["keys"], indirect=True)
def test_a_name_of_a_label_that_is_none_is_told_and_never_asked(
    stage: Stage, front: MetricsFront, airflow: PlayedAirflow
) -> None:
    for text in (*TEXTS.values(), LONG):
        begun = len(front.asked)
        status = turned(stage, airflow, metrics={"matchLabels": {text: "x"}})
        assert_plain(status, stage.operator.log())
        assert "cannot be the name of a Prometheus label" in condition(airflow, "MetricsAvailable")["message"]
        assert front.asked[begun:] == []


@pytest.mark.parametrize("airflow", ["release"], indirect=True)
def test_a_release_that_no_label_can_be_is_told_and_nothing_is_selected_by_it(
    stage: Stage, airflow: PlayedAirflow
) -> None:
    writes = Writes(stage.control_plane)
    for text in (*(text[:63] for text in TEXTS.values()), "airflow,component!=x", "airflow in (a)", "=airflow"):
        status = turned(stage, airflow, airflow={"release": text})
        assert_plain(status, stage.operator.log())
        ready = condition(airflow, "Ready")
        assert (ready["status"], ready["reason"]) == ("False", "Misconfigured"), text
        assert "no label can be" in ready["message"]
    for key, reason in (("release=airflow,x", "Misconfigured"), (ESCAPES, "Refused"), (LONG, "Refused")):
        status = turned(stage, airflow, airflow={"release": None, "selector": {"matchLabels": {key: "x"}}})
        assert_plain(status, stage.operator.log())
        assert condition(airflow, "Ready")["reason"] == reason
    before = writes.counted()["update tuningpolicies/status"]
    time.sleep(5)  # not a wait: nothing may happen meanwhile
    assert writes.counted()["update tuningpolicies/status"] <= before + 1, "it waits for the user, and does not spin"
    assert writes.acts() == set()


def hostile_pod(airflow: PlayedAirflow) -> None:
    """A Deployment whose pod says everything there is to say in every place where it may."""
    airflow.kubectl("delete", "deployment", "airflow-worker", "--cascade=foreground")
    everything = "".join(TEXTS.values())
    variables = {"AIRFLOW__CELERY__WORKER_CONCURRENCY": everything, "X": LONG, "AIRFLOW__CORE__PARALLELISM": BIDI}
    env = [{"name": name, "value": value} for name, value in variables.items()]
    resources = {"requests": {"memory": "512Mi"}, "limits": {"memory": "700Mi"}}
    airflow.deploy(
        "worker", 1, resources, image=everything, env=env, command=[everything], args=["--concurrency", ESCAPES]
    )
    eventually(lambda: len(airflow.pods()) == 1, "the pod is there")
    (pod,) = airflow.pods()
    marks = {
        "airflow-tuner.dev/original-memory": everything,
        "airflow-tuner.dev/original-environment": LONG,
        "karpenter.sh/do-not-disrupt": everything,
        "example.com/note": everything,
    }
    patch = json.dumps({"metadata": {"annotations": marks}})
    airflow.kubectl("patch", "pod", pod["metadata"]["name"], "--type=merge", "-p", patch)
    airflow.run_all()


def said_of(pod: Object, airflow: PlayedAirflow, text: str) -> None:
    """The pod's status says it wherever a status may say something."""
    told = {"type": "PodResizePending", "status": "True", "reason": "Infeasible", "message": text}
    ready = {"type": "Ready", "status": "True", "message": text, "reason": "X"}
    state = pod["status"]["containerStatuses"][0]
    state = {**state, "state": {"waiting": {"reason": text[:9000], "message": text}}}
    body = json.dumps(
        {"status": {"conditions": [ready, told], "message": text, "reason": text, "containerStatuses": [state]}}
    )
    name, source = pod["metadata"]["name"], "--patch-file=/dev/stdin"
    airflow.kubectl("patch", "pod", name, "--subresource=status", "--type=merge", source, input=body)


@pytest.mark.parametrize("airflow", ["pods"], indirect=True)
def test_a_pod_that_says_everything_is_watched_as_any_other_and_its_kill_is_answered(
    stage: Stage, airflow: PlayedAirflow
) -> None:
    hostile_pod(airflow)
    concurrency = [{"name": "*", "memory": {"min": "256Mi", "max": "4Gi"}, "concurrency": {"min": 1, "max": 8}}]
    assert_plain(turned(stage, airflow, workers=concurrency), stage.operator.log())
    airflow.kill(airflow.pods()[0])
    eventually(lambda: airflow.limits() == {"1050Mi"}, lambda: f"the answer\n{stage.operator.log()[-9999:]}")
    airflow.kubectl("annotate", "tuningpolicy", "airflow", f"airflow-tuner.dev/paused={BIDI}")
    faults.touch(airflow)
    assert "Paused" not in str(airflow.status()["targets"])


@pytest.mark.parametrize("airflow", ["words"], indirect=True)
def test_what_a_pods_status_says_is_quoted_plainly(stage: Stage, airflow: PlayedAirflow) -> None:
    turned(stage, airflow)
    airflow.kill(airflow.pods()[0])
    eventually(lambda: airflow.limits() == {"1050Mi"}, lambda: f"the answer\n{stage.operator.log()[-9999:]}")
    for text in (LONG, *TEXTS.values()):
        said_of(airflow.pods()[0], airflow, text)
        faults.touch(airflow)
        eventually(lambda: "ResizeRefused" in str(airflow.status()), "it is a finding")
        assert_plain(airflow.status(), stage.operator.log())
        assert_plain({"notes": [event["note"] for event in faults.events(airflow, "ResizeRefused")]})


@pytest.mark.parametrize("airflow", ["series"], indirect=True)
def test_what_series_say_is_told_plainly_and_belongs_to_no_other_pod(
    stage: Stage, exporter: Server, front: MetricsFront, airflow: PlayedAirflow
) -> None:
    (pod,) = airflow.pods()
    name = pod["metadata"]["name"]

    def line(metric: str, value: float, pod: str, note: str) -> str:
        labels = {"namespace": airflow.namespace, "pod": pod, "container": "worker", "name": note, "dag_file": note}
        told = ",".join(f"{key}={json.dumps(text, ensure_ascii=False)}" for key, text in labels.items())
        return f"{metric}{{{told}}} {value}\n"

    kills, used = "container_oom_events_total", "container_memory_working_set_bytes"
    texts = [text.replace("\r", "").replace("\x1b", "").replace("\x07", "") for text in TEXTS.values()]
    exporter.body = "".join(
        line(kills, 9, f"{name}{text}", text) + line(used, 1e8, f"{name}{text}", text) for text in (*texts, LONG)
    )
    begun = len(exporter.asked)
    eventually(lambda: len(exporter.asked) > begun + 2, "scrapes")
    assert_plain(turned(stage, airflow), stage.operator.log())
    assert condition(airflow, "MetricsAvailable")["status"] == "False", "none of these series is of the pod"

    def garbled(promql: str, real: Callable[[], bytes]) -> Answer:
        answer = json.loads(real())
        for text in (*TEXTS.values(), LONG):
            metric = {"pod": name, "container": "worker", "name": text, "id": text, text: text}
            value = str(time.time()) if promql.startswith("timestamp(") else "1e308"
            answer["data"]["result"].append({"metric": metric, "value": [0, value]})
        return Answer(body=json.dumps(answer).encode())

    front.fault = garbled
    try:
        faults.touch(airflow)
        assert_plain(airflow.status(), stage.operator.log())
        assert airflow.limits() == {"700Mi"}, "a container of another id is another container"
    finally:
        front.fault = None

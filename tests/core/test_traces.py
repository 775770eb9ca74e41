"""Pods of the past, read from the series that they left."""

from datetime import timedelta
from uuid import NAMESPACE_OID, uuid5

import pytest

from airflow_tuner import api, quantity
from airflow_tuner.errors import Misconfigured
from airflow_tuner.model import Cpu, Memory, Pod, Workload
from airflow_tuner.signals import Series
from airflow_tuner.traces import Stated, Traces, stated
from core.worlds import MI, NOW, spec

Values = dict[str, tuple[Series, ...]]


def container(pod: str, life: int = 1, name: str = "worker") -> dict[str, str]:
    one = uuid5(NAMESPACE_OID, f"{pod} {life}").hex * 2
    return {"pod": pod, "container": name, "id": f"/kubepods/pod{uuid5(NAMESPACE_OID, pod)}/{one}", "name": one}


def told(*pods: dict[str, str], **objects: float) -> Values:
    """Samples of these containers now, and what kube-state-metrics says of each of their pods."""
    found = {"sampled_at": tuple(Series(labels, NOW.timestamp()) for labels in pods)}
    for name, value in objects.items():
        own = ({"pod": one["pod"], "container": one["container"]} for one in pods)
        found[name] = tuple({labels["pod"]: Series(labels, value) for labels in own}.values())
    return found


def looked(traces: Traces, minute: int, values: Values) -> tuple[Workload, ...]:
    return traces.workloads(NOW + timedelta(minutes=minute), values)


def only(workloads: tuple[Workload, ...]) -> Pod:
    ((pod,),) = (workload.pods for workload in workloads)
    return pod


def test_a_pod_is_of_its_workload_and_has_what_kube_state_metrics_says() -> None:
    traces = Traces(spec(), {})
    values = told(container("airflow-worker-0"), limit=2 * MI, request=MI, restarts=0, cpu_request=0.5, cpu_limit=2)
    (worker,) = looked(traces, 0, values)
    assert (worker.target, worker.label, worker.container) == ("worker/default", "StatefulSet/airflow-worker", "worker")
    assert worker.template == only((worker,)).running == Memory(MI, 2 * MI)
    assert (worker.cpu_limit, worker.stated.cpu, only((worker,)).cpu) == (2, Cpu(500, 2000), Cpu(500, 2000))
    assert (worker.requests, worker.limits) == (
        {"memory": f"{MI}", "cpu": "500m"},
        {"memory": f"{2 * MI}", "cpu": "2000m"},
    )
    assert traces.unknown == {}
    assert traces.objects_known


def test_a_deployment_is_told_from_a_stateful_set_and_a_set_of_workers_from_the_default_one() -> None:
    pods = (
        container("airflow-worker-heavy-5d6f7c8b9d-x2k4p"),
        container("airflow-worker-0"),
        container("airflow-scheduler-5d6f7c8b9d-x2k4p", name="scheduler"),
        container("airflow-triggerer-0", name="airflow-triggerer"),
        container("airflow-worker-0", name="worker-log-groomer"),
    )
    found = looked(Traces(spec(), {}), 0, told(*pods, restarts=0))
    assert [(item.target, item.kind, item.container) for item in found] == [
        ("scheduler", "Deployment", "scheduler"),
        ("triggerer", "StatefulSet", "airflow-triggerer"),
        ("worker/default", "StatefulSet", "worker"),
        ("worker/heavy", "Deployment", "worker"),
    ]
    assert found[3].queues == ("heavy",)


def test_other_airflows_of_the_namespace_are_left_out_and_named() -> None:
    traces = Traces(spec(), {})
    found = looked(traces, 0, told(container("airflow-worker-0"), container("old-worker-0"), restarts=0))
    assert [item.name for item in found] == ["airflow-worker"]
    assert traces.others == {"old-worker"}
    selected = api.Spec.model_validate({"airflow": {"selector": {"matchLabels": {"a": "b"}}}})
    assert len(looked(Traces(selected, {}), 0, told(container("x-worker-0"), container("old-worker-0")))) == 2


def test_the_line_is_that_of_the_component_that_one_line_alone_has() -> None:
    traces = Traces(spec(), {})
    looked(traces, 0, told(container("airflow-worker-0"), restarts=0))
    assert traces.line is None
    looked(traces, 1, told(container("airflow-webserver-5d6f7c8b9d-x2k4p", name="webserver"), restarts=0))
    assert traces.line == "2"
    looked(traces, 2, told(container("airflow-worker-0"), restarts=0))
    assert traces.line == "2", "as it was last known"


def test_of_a_pod_its_last_container_counts_though_the_one_before_lingers() -> None:
    traces = Traces(spec(), {})
    first, second = container("airflow-worker-0"), container("airflow-worker-0", 2)
    pod = only(looked(traces, 0, told(second, restarts=0)))
    pod = only(looked(traces, 1, told(second, first, restarts=1)))
    assert (pod.container_id, pod.started) == (first["name"], NOW + timedelta(minutes=1))
    assert pod.created == NOW


@pytest.mark.parametrize(("marks", "dead"), [({"killed": 1.0}, True), ({}, False)])
def test_a_death_for_memory_is_seen_as_the_restarts_rise(marks: dict[str, float], dead: bool) -> None:
    traces = Traces(spec(), {})
    one = container("airflow-worker-0")
    before = only(looked(traces, 0, told(one, restarts=3, **marks)))
    assert before.death is None, "when that was is not known"
    after = only(looked(traces, 5, told(one, restarts=4, **marks)))
    assert after.deaths == 4
    assert (after.death is not None) is dead
    assert after.death is None or (after.death.number, after.death.at) == (4, NOW + timedelta(minutes=5))
    later = only(looked(traces, 10, told(one, restarts=4, **marks)))
    assert later.death == after.death, "it stays the last one"


def test_what_kube_state_metrics_said_last_holds_while_it_is_not_scraped() -> None:
    traces = Traces(spec(), {})
    one = container("airflow-worker-0")
    looked(traces, 0, told(one, limit=2 * MI, restarts=1))
    pod = only(looked(traces, 5, told(one)))
    assert (pod.memory, pod.deaths) == (Memory(None, 2 * MI), 1)


def test_without_it_cadvisors_limit_counts_and_the_request_must_be_stated() -> None:
    one = container("airflow-worker-0")
    values = told(one) | {"allowed": (Series(one, 3 * MI),)}
    traces = Traces(spec(), {})
    assert only(looked(traces, 0, values)).memory == Memory(None, 3 * MI)
    assert traces.unknown == {"worker/default": {"request"}}
    traces = Traces(spec(), dict([stated("worker/default=request:1Mi,limit:none")]))
    assert only(looked(traces, 0, values)).memory == Memory(MI, 3 * MI), "what is measured goes before what is stated"
    assert traces.unknown == {"worker/default": set()}
    traces = Traces(spec(), {})
    looked(traces, 0, told(one))
    assert traces.unknown == {"worker/default": {"limit", "request"}}


def test_without_it_a_new_container_is_a_restart_of_which_the_reason_is_not_known() -> None:
    traces = Traces(spec(), {})
    looked(traces, 0, told(container("airflow-worker-0")))
    pod = only(looked(traces, 5, told(container("airflow-worker-0", 2))))
    assert (pod.deaths, pod.death) == (1, None)


def test_what_is_stated_is_what_the_template_would_say() -> None:
    said = dict([stated("worker/default=slots:16,queues:a+b"), stated("dag-processor=interval:30,processes:4")])
    told_by = Traces(api.Spec.model_validate({"airflow": {"release": "airflow", "version": "3"}}), said)
    pods = (container("airflow-worker-0"), container("airflow-dag-processor-5d6f7c8b9d-x2k4p", name="dag-processor"))
    processor, worker = looked(told_by, 0, told(*pods, restarts=0))
    assert (worker.stated.concurrency, worker.queues) == (16, ("a", "b"))
    assert (processor.stated.interval, processor.stated.processes) == (30, 4)
    assert processor.pods[0].environment == processor.environment
    assert processor.environment[api.EnvName.INTERVAL] == "30"


@pytest.mark.parametrize(
    "text", ["worker/default", "worker/default=", "worker/default=slots:0", "worker/default=limit:lots", "a=b:c"]
)
def test_what_is_stated_in_another_form_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match="It has the form worker/default=limit:2Gi"):
        stated(text)


def test_cpu_must_be_stated_only_where_the_policy_names_it() -> None:
    workers = [{"name": "*", "memory": {"min": "1Mi", "max": "1Gi"}, "cpu": {"min": "100m", "max": "4"}}]
    one, size = container("airflow-worker-0"), "worker/default=limit:1Mi,request:1Mi"
    traces = Traces(spec(workers=workers), dict([stated(size)]))
    looked(traces, 0, told(one))
    assert traces.unknown == {"worker/default": {"cpu"}}
    traces = Traces(spec(workers=workers), dict([stated(f"{size},cpu:250m,cpu-limit:1")]))
    assert only(looked(traces, 0, told(one))).running_cpu == Cpu(250, 1000)
    assert traces.unknown == {"worker/default": set()}


def test_none_is_stated_as_such() -> None:
    _, found = stated("scheduler=limit:none,request:512Mi")
    assert found == Stated(Memory(512 * quantity.MEBIBYTE, None), unlimited=True)

"""Memory and CPU of a moment, from metrics.k8s.io: they are shown, and nothing is decided or claimed by them."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from airflow_tuner import api, explain, resource_metrics
from airflow_tuner.model import MetricsState, Pod, Sample, Usage
from airflow_tuner.resource_metrics import Current
from core.test_concurrency import celery
from core.worlds import MI, NOW, airflow, observed, pod, scheduler, slots_spec, spec, tasks, turn, worker

LIMIT = timedelta(seconds=300)
STARTED = NOW - timedelta(hours=1)


def of(name: str = "airflow-worker-0", at: str = "2026-11-24T11:59:50Z", **usage: Any) -> dict[str, Any]:  # noqa: ANN401 - as the API has it
    """PodMetrics as metrics-server has them."""
    used = {"cpu": "1234567n", "memory": "700Mi", **usage}
    return {
        "metadata": {"name": name, "namespace": "airflow", "labels": {"tier": "airflow"}},
        "timestamp": at,
        "window": "15.1s",
        "containers": [
            {"name": "worker", "usage": used},
            {"name": "worker-log-groomer", "usage": {"cpu": "0", "memory": "3Mi"}},
        ],
    }


def momentary(cpu: float, memory: float) -> Usage:
    """What is in use now, in cores and MiB."""
    return Usage(working_set=Sample(memory * MI, NOW, momentary=True), cpu=Sample(cpu, NOW, momentary=True))


def test_pod_metrics_are_read_by_pod_and_container_with_their_time() -> None:
    found = resource_metrics.read([of(), of("airflow-worker-1", cpu="2", memory="1048576")])
    usage = found["airflow-worker-0", "worker"]
    assert usage.working_set == Sample(700 * MI, NOW - timedelta(seconds=10), momentary=True)
    assert usage.cpu == Sample(0.001234567, NOW - timedelta(seconds=10), momentary=True)
    assert found["airflow-worker-1", "worker"].cpu == Sample(2.0, NOW - timedelta(seconds=10), momentary=True)
    idle = found["airflow-worker-0", "worker-log-groomer"].cpu
    assert idle is not None
    assert idle.value == 0.0
    assert usage.momentary
    assert {name for name in ("peak", "process_kills", "anonymous", "anonymous_day") if getattr(usage, name)} == set()


@pytest.mark.parametrize(
    "item",
    [
        {},
        None,
        "text",
        {**of(), "timestamp": None, "containers": 7},
        {**of(), "timestamp": "yesterday"},
        of(memory="a lot"),
        of(cpu="-1"),
        {**of(), "containers": [{"name": "worker", "usage": {}}]},
    ],
)
def test_what_has_another_form_is_left_out_and_stops_nothing(item: object) -> None:
    assert resource_metrics.read([item, of("other")]).keys() >= {("other", "worker")}
    assert ("airflow-worker-0", "worker") not in resource_metrics.read([item])


def filled(*pods: Pod, **fields: str) -> tuple[list[bool], int]:
    """Of which pods something is known, and of how many."""
    current = Current(resource_metrics.read([of(one.name, **fields) for one in pods]))
    (workload,), known = resource_metrics.filled([worker(*pods)], current, NOW, LIMIT)
    return [one.usage.momentary for one in workload.pods], known


def test_it_fills_what_lives_and_is_fresh() -> None:
    assert filled(pod(started=STARTED), pod("airflow-worker-1", started=STARTED)) == ([True, True], 2)
    assert filled(pod(started=STARTED), at="2026-11-24T11:50:00Z") == ([False], 0), "older than staleAfterSeconds"
    assert filled(pod(started=NOW)) == ([False], 0), "of the container before this one"
    assert filled(pod()) == ([False], 0), "it does not run"
    (workload,), known = resource_metrics.filled([worker(pod(started=STARTED))], Current(), NOW, LIMIT)
    assert (workload.pods[0].usage, known) == (Usage(), 0)


def test_no_first_limit_and_no_request_rests_on_a_moment() -> None:
    bare = pod(limit=None, request=None)
    known = replace(bare, usage=Usage(working_set=Sample(700 * MI, NOW)))
    assert turn(spec(), observed(worker(known, limit=None, request=None))).reasons == ["LimitsMissing"]
    moment = replace(bare, usage=momentary(0.2, 700))
    last = turn(spec(), observed(worker(moment, limit=None, request=None), state=MetricsState.CURRENT))
    assert last.reasons == []


def test_slots_do_not_rise_on_the_cpu_of_a_moment_but_a_full_cpu_is_told() -> None:
    late = airflow(tasks(30, 2, duration=60.0))

    def told(cpu: float) -> tuple[list[str], str]:
        workers = replace(celery(2, usage=momentary(cpu, 700)), cpu_limit=1.0)
        seen = observed(workers, airflow=late, broker="", state=MetricsState.CURRENT)
        last = turn(slots_spec(), seen)
        (finding,) = [one for one in last.findings if one.reason == "QueueLagHigh"]
        return last.reasons, finding.message

    reasons, message = told(0.3)
    assert reasons == []
    assert "CpuUnknown: The workers' CPU use is known of a moment only (metrics.k8s.io)" in message
    reasons, message = told(0.98)
    assert reasons == []
    assert "WorkersCpuBound: CPU holds tasks back: airflow-worker-0 uses 0.98 of the 1 cores of its limit" in message


def test_a_moment_tells_neither_a_slow_database_nor_a_scheduler_short_of_cpu() -> None:
    waits = tasks(section=9.0, critical=2.0)
    started = NOW - timedelta(hours=1)
    policy = slots_spec(scheduler={"memory": {"min": "512Mi", "max": "4Gi"}})

    def found(usage: Usage) -> list[str]:
        seen = observed(celery(2), scheduler(pod("s", started=started, usage=usage)), airflow=airflow(waits), broker="")
        return [one for one in turn(policy, seen).found if one in {"DatabaseSlow", "SchedulerUnderResourced"}]

    assert found(Usage(cpu=Sample(0.01, NOW))) == ["DatabaseSlow"]
    assert found(momentary(0.01, 300)) == []


def test_a_memory_that_is_nearly_full_for_a_moment_is_no_finding_as_page_cache_is_in_it() -> None:
    full = pod(usage=momentary(0.2, 1020), started=STARTED)
    seen = observed(worker(full), state=MetricsState.CURRENT, message="Only current memory and CPU of 1 pod are known.")
    assert turn(spec(), seen).found == ["MetricsUnavailable"]


def test_explain_shows_what_is_in_use_now() -> None:
    last = turn(spec(), observed(worker(pod(usage=momentary(0.2, 700))), state=MetricsState.CURRENT))
    page = explain.page("worker/default", spec(), last.seen, api.Status(), last.decision, ())
    assert "  now       700 MiB at 12:00:00, page cache included (metrics.k8s.io)" in page


def test_the_condition_says_that_metrics_are_not_available_and_what_is_known_instead() -> None:
    message = "There is no Prometheus. Only current memory and CPU of 1 pod are known, from metrics.k8s.io."
    last = turn(spec(), observed(worker(pod()), state=MetricsState.CURRENT, message=message))
    (condition,) = [one for one in last.status.conditions if one.type == "MetricsAvailable"]
    assert (condition.status, condition.reason, condition.message) == ("False", "CurrentOnly", message)
    (finding,) = last.findings
    assert finding.reason == "MetricsUnavailable"
    assert finding.message.startswith(message)

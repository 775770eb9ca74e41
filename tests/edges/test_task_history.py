"""What a real Prometheus remembers of pods of tasks that are long gone: it was given them as a past."""

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

from airflow_tuner import api, signals
from airflow_tuner.prometheus import Prometheus, scope
from airflow_tuner.quantity import MEBIBYTE
from airflow_tuner.settings import Source
from airflow_tuner.task_history import past_of_tasks
from airflow_tuner.task_runs import TaskRuns
from edges.servers import serving
from testbed.processes import Area
from testbed.prometheus import Prometheus as RealPrometheus

POLICY = {"airflow": {"release": "airflow"}, "tasks": {"memory": {"min": "128Mi", "max": "8Gi"}}}
DAY = 86400
LOADS = 30
"""Runs of the task load: one each quarter of a day, of 5 samples, and the last one killed at its limit."""


def _pod(
    name: str, begin: float, sizes: list[int], limit: int, *, killed: bool = False, container: str = "base"
) -> str:
    """A pod of so many samples of anonymous memory in MiB, 15 s apart, as cAdvisor tells it."""
    labels = f'namespace="n",pod="{name}",container="{container}",id="/kubepods/{name}"'
    lines = []
    for number, size in enumerate(sizes):
        at, most = begin + 15 * number, max(sizes[: number + 1]) + 50
        told = {"memory_rss": size, "memory_max_usage_bytes": most, "spec_memory_limit_bytes": limit}
        lines += [f"container_{kind}{{{labels}}} {value * MEBIBYTE} {at:.3f}" for kind, value in told.items()]
        lines.append(f"container_oom_events_total{{{labels}}} {int(killed and size == max(sizes))} {at:.3f}")
    return "\n".join(lines)


def _of_state_metrics(name: str, at: float, request: int, limit: int) -> str:
    labels = f'namespace="n",pod="{name}",container="base",resource="memory"'
    told = {"requests": request, "limits": limit}
    return "\n".join(
        f"kube_pod_container_resource_{kind}{{{labels}}} {value * MEBIBYTE} {at:.3f}" for kind, value in told.items()
    )


@pytest.fixture(scope="module")
def past(area: Area, needs: Callable[..., None]) -> Iterator[RealPrometheus]:
    """Eight days: a task with 30 runs, one with two runs of a sample each, a worker, and a pod of another container."""
    needs("prometheus", "promtool")
    end = time.time() - 300
    told = []
    for run in range(LOADS):
        at, last = end - (LOADS - run) * DAY / 4, run == LOADS - 1
        peak = 900 if last else 300 + 10 * run
        told.append(_pod(f"etl-load-{run:08d}", at, [100, 200, peak, 150, 100], 1024, killed=last))
        told.append(_of_state_metrics(f"etl-load-{run:08d}", at, 512 if run < LOADS - 2 else 768, 1024))
    told += [_pod(f"etl-tiny-abcdefg{run}", end - 5 * DAY - run * 600, [80], 0) for run in range(2)]
    told.append(_pod("airflow-worker-0", end - DAY, [400], 2048, container="worker"))
    told.append(_pod("odd", end - DAY, [400], 2048))
    lines = sorted((line for one in told for line in one.splitlines()), key=_place)
    source = RealPrometheus(area, [])
    source.remember("\n".join([*_families(lines), "# EOF\n"]))
    with source:
        yield source


def _place(line: str) -> tuple[str, float]:
    """Its series, and its time."""
    return line.partition(" ")[0], float(line.rpartition(" ")[2])


def _families(lines: list[str]) -> Iterator[str]:
    known = ""
    for line in lines:
        name = line.partition("{")[0]
        if name != known:
            yield f"# TYPE {name} gauge"
            known = name
        yield line


def asked(url: str, namespace: str = "n") -> tuple[tuple[TaskRuns, ...], int | None]:
    spec = api.Spec.model_validate(POLICY)
    return asyncio.run(past_of_tasks(Prometheus("default", Source(url=url)), spec, namespace, None))


def test_each_task_is_told_with_its_peaks_its_kills_and_what_its_last_pods_had(past: RealPrometheus) -> None:
    (load, tiny), groups = asked(past.url)
    mib = MEBIBYTE
    assert load == TaskRuns(
        "etl-load",
        runs=LOADS,
        looks=5 * LOADS,
        usual=560 * mib + 1 * mib,
        most=900 * mib,
        peak=950 * mib,
        kills=1,
        killed_at=1024 * mib,
        limit=1024 * mib,
        request=768 * mib,
    )
    assert tiny == TaskRuns("etl-tiny", runs=2, looks=2, usual=80 * mib, most=80 * mib, peak=130 * mib, limit=0)
    assert groups == 3, "with the pod whose name is none of a task"


def test_of_another_namespace_nothing_is_told(past: RealPrometheus) -> None:
    assert asked(past.url, "other") == ((), None)


def test_it_is_asked_once_an_hour_and_after_a_failure_it_rests(past: RealPrometheus) -> None:
    async def calls(url: str) -> int:
        source, spec = Prometheus("default", Source(url=url)), api.Spec.model_validate(POLICY)
        for _ in range(3):
            await past_of_tasks(source, spec, "n", None)
        return source.calls

    assert asyncio.run(calls(past.url)) == 1
    with serving("", 503) as server:
        assert asyncio.run(calls(server.url)) == 1


def test_without_bounds_for_tasks_nothing_is_asked(past: RealPrometheus) -> None:
    source = Prometheus("default", Source(url=past.url))
    spec = api.Spec.model_validate({"airflow": {"release": "airflow"}})
    assert asyncio.run(past_of_tasks(source, spec, "n", None)) == ((), None)
    assert source.calls == 0
    assert scope(spec.metrics, "n").tasks == 'namespace="n",container="base"'
    assert signals.TASK_RUNS.lasts >= 3600

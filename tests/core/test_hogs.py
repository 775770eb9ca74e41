"""Tasks that take far more memory than a slot has: named where Airflow says how large they are."""

from typing import Any

import pytest

from airflow_tuner import questions, telemetry
from airflow_tuner.executor import UNKNOWN, Executors
from airflow_tuner.model import Finding, Severity, Workload
from airflow_tuner.signals import Series
from airflow_tuner.singles import TaskMemory
from core.worlds import MI, airflow, observed, pod, slots, slots_spec, spec, tasks, turn, worker


def found(
    *sizes: int,
    limit: int | None = 4096,
    number: int = 4,
    line: str | None = "2",
    others: tuple[Workload, ...] = (),
    runs: Executors = UNKNOWN,
) -> list[Finding]:
    """What is said of tasks of these sizes in a worker of four slots."""
    largest = tuple(TaskMemory(f"etl_task{size}", size * MI) for size in sizes)
    workers = worker(pod(limit=limit, slots=slots(number, 1)), limit=limit)
    seen = observed(workers, *others, line=line, airflow=airflow(tasks(largest=largest)), executors=runs)
    return [one for one in turn(spec(high="8Gi"), seen).findings if one.reason == "TaskMemoryHog"]


def test_a_task_that_takes_twice_a_slots_share_is_named_with_how_many_fit() -> None:
    # (4096 - 261) / 4 = 958 MiB for each slot; 55 MiB of a process are shared.
    assert found(958 * 2 + 54) == []
    (finding,) = found(2500, 300)
    assert (finding.severity, finding.target) == (Severity.WARNING, "worker/default")
    assert finding.message == (
        "The process of one task was far larger than a slot's share: etl_task2500 2500 MiB within half an hour; a "
        "worker of StatefulSet/airflow-worker has 4096 MiB for 4 slots, which is 959 MiB for each. 1 of the largest "
        "fits at once. Let it read in chunks or as a stream, or give it a queue of its own with workers of its own "
        "(workers.celery.sets of a recent Airflow chart)."
    )


def test_several_are_named_the_largest_first() -> None:
    (finding,) = found(4200, 2600, 2500, 2400)
    assert "The processes of 4 tasks were far larger than a slot's share: etl_task4200 4200 MiB, etl_task2600" in (
        finding.message
    )
    assert "etl_task2400" not in finding.message
    assert "The largest does not fit at all beside the worker itself." in finding.message


@pytest.mark.parametrize("number", [4, 8, 16])
@pytest.mark.parametrize("limit", [1024, 2048, 4096])
def test_usual_tasks_are_none_however_small_a_slots_share_is(limit: int, number: int) -> None:
    # An empty task of 2.11.2 shows 160 MiB, and common libraries bring 100 MiB more.
    assert found(160, 260, limit=limit, number=number) == []


def test_with_many_small_slots_a_quarter_of_the_limit_is_large() -> None:
    assert found(560, limit=2048, number=16) == []
    assert len(found(570, limit=2048, number=16)) == 1


def test_a_task_that_has_a_worker_to_itself_is_none() -> None:
    assert found(3500, number=1) == []


def test_nothing_is_said_where_it_is_not_known() -> None:
    other = worker(pod("b"), target="worker/heavy", name="airflow-worker-heavy")
    assert found(3000, others=(other,)) == [], "in which group it ran"
    assert found(3000, limit=None) == []
    assert found(3000, line="3") == found(3000, line=None) == found() == []
    seen = observed(worker(pod()), line="2", airflow=airflow(tasks(largest=(TaskMemory("a", 3000 * MI),))))
    assert "TaskMemoryHog" not in turn(spec(), seen).found, "how many slots there are"
    assert "TaskMemoryHog" not in turn(spec(workers=[]), seen).found


def test_beside_other_executors_it_is_not_known_where_a_task_ran() -> None:
    assert found(9000, runs=Executors(("CeleryKubernetesExecutor",), "the policy")) == []
    assert found(9000, runs=Executors(("LocalExecutor",), "the policy")) == []
    assert len(found(9000, runs=Executors(("CeleryExecutor",), "the policy"))) == 1


def test_a_healthy_airflow_2_is_silent() -> None:
    healthy: dict[str, Any] = {"largest": (TaskMemory("etl_load", 170 * MI),), "ran": {}, "killed": ()}
    seen = observed(
        worker(pod(limit=2048, slots=slots(8))), line="2", airflow=airflow(tasks(0, 8, **healthy)), broker=""
    )
    assert turn(slots_spec(), seen).findings == ()


def test_they_are_read_the_largest_first_and_no_answer_is_no_task() -> None:
    told = [Series({"signal": name}, 36) for name in ("beats", "known")]
    sizes = [Series({"signal": "task_memory", "task": name}, size) for name, size in (("a_b", 1e9), ("c_d", 3e9))]
    beats = (Series({"__name__": "airflow_scheduler_heartbeat"}, 13),)
    answers = {
        questions.GAUGES.name: beats,
        questions.AIRFLOW_RATES.name: tuple(told),
        questions.AIRFLOW_SIGNS.name: tuple(sizes),
    }
    read = telemetry.read(answers, "2").tasks
    assert read is not None
    assert read.largest == (TaskMemory("c_d", 3_000_000_000), TaskMemory("a_b", 1_000_000_000))

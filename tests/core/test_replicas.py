"""Where slots end, it is said how many workers would do, unless something else decides that."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_tuner import replicas
from airflow_tuner.autoscaler import Autoscaler
from airflow_tuner.lag import Flow
from airflow_tuner.model import Observation
from core.test_concurrency import celery, crowded
from core.worlds import observed, slots_spec, tasks, turn, worker

KEDA = Autoscaler("ScaledObject", "airflow-worker", "StatefulSet/airflow-worker")
HORIZONTAL = Autoscaler("HorizontalPodAutoscaler", "airflow-worker", "StatefulSet/airflow-worker")
VERTICAL = Autoscaler("VerticalPodAutoscaler", "airflow-worker", "StatefulSet/airflow-worker")
FULL = crowded(waiting=30, running=16, of=celery(16))


def said(seen: Observation, **limits: int | str) -> str:
    """What is found of the queue, and what is done about it."""
    last = turn(slots_spec(**limits), seen)  # type: ignore[arg-type] # the limits are its fields
    return " ".join(finding.message for finding in last.findings if finding.reason == "QueueLagHigh") + " ".join(
        change.message for change in last.decision.changes
    )


def test_at_the_most_slots_it_says_how_many_workers_would_do() -> None:
    assert "Raise it, or run 3 workers instead of 1: 46 slots are asked for in all." in said(FULL)


def test_where_memory_ends_it_says_so_too() -> None:
    seen = crowded(running=7, of=celery(7))
    assert "Raise memory.max, or run 6 workers instead of 1: 37 slots are asked for in all." in said(
        seen, memory_max="1Gi"
    )


def test_a_raise_that_does_not_reach_says_what_would() -> None:
    seen = crowded(waiting=30, running=8, of=celery(8))
    told = said(seen, high=12)
    assert "concurrency.max is 12. For all that is asked for, run 4 workers instead of 1" in told


@pytest.mark.parametrize("scaler", [KEDA, HORIZONTAL])
def test_what_scales_the_workers_is_left_to_it(scaler: Autoscaler) -> None:
    told = said(replace(FULL, autoscalers=(scaler,)))
    assert f"Raise it, or leave more workers to the {scaler.kind} airflow-worker, as far as its maximum goes." in told
    assert "instead of" not in told


def test_what_changes_memory_alone_does_not_scale_them() -> None:
    assert "run 3 workers instead of 1" in said(replace(FULL, autoscalers=(VERTICAL,)))


def test_parallelism_that_does_not_let_as_many_be_busy_is_told() -> None:
    seen = crowded(waiting=30, running=16, of=celery(16), open_slots=16, handed_out=16)
    assert "in all, and core.parallelism, 32 for each scheduler, must allow as many." in said(seen)
    seen = crowded(waiting=30, running=16, of=celery(16), open_slots=100, handed_out=16)
    assert "must allow" not in said(seen)


def test_the_parallelism_that_would_do_is_told() -> None:
    seen = crowded(open_slots=0, handed_out=2)
    assert "Raise config.core.parallelism of the chart, to 32 at least." in said(seen)


@given(
    st.integers(0, 500), st.integers(0, 500), st.integers(1, 20), st.integers(1, 64), st.none() | st.floats(0.1, 9000)
)
def test_so_many_workers_have_the_slots_that_are_asked_for(
    waiting: int, running: int, workers: int, slots: int, duration: float | None
) -> None:
    found = Flow(waiting, running, slots * workers, workers, duration, 30)
    told = replicas.advised(found, slots, worker(), observed(), tasks())
    wanted = int(told.split()[1])
    assert wanted * slots >= found.asked
    assert wanted > workers
    assert wanted == workers + 1 or (wanted - 1) * slots < found.asked

"""Slots that follow the hours: up before the one that recurs, down once it is over, and when they do not."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_tuner import api, decide
from airflow_tuner.autoscaler import Autoscaler
from airflow_tuner.concurrency import Assessment
from airflow_tuner.history import History, hour_of, of_tasks
from airflow_tuner.model import MetricsState, Observation, Pod, Values
from airflow_tuner.telemetry import Pace
from core.worlds import MI, NOW, Turn, airflow, applied, observed, pod, slots, slots_spec, tasks, turn, usage, worker

HOUR = hour_of(NOW)
MINUTE = timedelta(minutes=1)
BUSY, CALM = 36, 8
"""Tasks at once of the hour that follows `NOW`, and of the others."""


def known(hours: int = 28 * 24, busy: int = BUSY) -> History:
    """The tasks of so many hours before `NOW`: the hour after it brings many each day."""
    begin = HOUR - hours
    return History(begin, tuple(busy if hour % 24 == (HOUR + 1) % 24 else CALM for hour in range(begin, HOUR)))


def workers(number: int, busy: int = 0, *, limit: int = 4096, **fields: Any) -> tuple[Pod, ...]:  # noqa: ANN401 - any field of the pods
    of_pod = {"usage": usage(anonymous=300, anonymous_day=350, cpu=0.2), "slots": slots(number, busy), **fields}
    return tuple(pod(f"w{index}", limit=limit, **of_pod) for index in range(2))


def looked(number: int = 8, running: int = 2, *, history: History | None = None, **fields: Any) -> Observation:  # noqa: ANN401 - any field of the observation
    """Two workers with so many slots each, and the past of their tasks."""
    group = worker(*workers(number, running // 2), limit=4096, stated=Values(concurrency=number), replicas=2)
    past = {of_tasks("worker/default"): known() if history is None else history}
    return observed(group, **{"airflow": airflow(tasks(0, running)), "broker": "", "histories": past, **fields})


def at(seen: Observation, minutes: int) -> Observation:
    """So much later: the same samples, new, and the same past."""
    return replace(seen, at=NOW + minutes * MINUTE)


def number(last: Turn) -> int | None:
    return last.target.desired.concurrency


def assessed(seen: Observation) -> Assessment:
    policy = slots_spec(high=32)
    bounds = decide.bounds_of(policy, "worker", "worker/default")
    assert bounds is not None
    return decide.item_of(policy, bounds, seen.workloads[0], seen, api.Status()).slots


def test_slots_rise_ten_minutes_before_the_hour_that_recurs_with_the_limit_that_carries_them() -> None:
    small = worker(*workers(5, limit=900), limit=900, stated=Values(concurrency=5), replicas=2)
    seen = replace(looked(), workloads=(small,))
    assert turn(slots_spec(high=32), at(seen, 49)).reasons == []
    last = turn(slots_spec(high=32), at(seen, 50))
    assert last.reasons == ["SlotsForecast"]
    wanted = number(last) or 0
    assert BUSY / 2 < wanted <= 1.5 * BUSY / 2
    assert (last.request, last.limit) == (512, 255 + wanted * 86 + (wanted - 5) * (50 + 43) + 130)
    assert (
        f"Slots 5 -> {wanted}, memory limit 900 MiB -> {last.limit} MiB for each worker of StatefulSet/airflow-worker: "
        in last.target.why
    )
    assert "tasks at once are foreseen until 13:00 (from the " in last.target.why
    assert ", of 28.0 days, exceeded once in 7); 2 run and 0 wait now. Memory: 255 MiB + " in last.target.why


def test_slots_below_the_policys_minimum_are_not_set_where_memory_carries_no_more() -> None:
    small = worker(*workers(5, limit=900), limit=900, stated=Values(concurrency=5), replicas=2)
    seen = at(replace(looked(), workloads=(small,)), 50)
    assert number(turn(slots_spec(low=6, high=32, memory_max="1100Mi"), seen)) == 6
    assert turn(slots_spec(low=8, high=32, memory_max="1100Mi"), seen).reasons == []


def test_memory_that_is_foreseen_for_the_same_hour_rises_in_the_same_change() -> None:
    seen = looked(5)
    hours = range(HOUR - 28 * 24, HOUR)
    peaks = History(hours[0], tuple(900 if hour % 24 == (HOUR + 1) % 24 else 300 for hour in hours))
    seen = replace(seen, histories={**seen.histories, "worker/default": peaks})
    last = turn(slots_spec(high=32), at(seen, 50))
    assert (last.reasons, last.request) == (["SlotsForecast"], 768)
    assert (number(last) or 0) > BUSY / 2
    assert "the 2 hours from this one on take 927 MiB usually" in last.target.why


def test_once_the_hour_is_over_they_fall_and_memory_only_after_them() -> None:
    seen = looked(24, 2)
    last = turn(slots_spec(high=32), seen)
    assert last.reasons == ["SlotsReleased"]
    assert CALM / 2 <= (number(last) or 0) <= CALM
    assert last.target.desired.memory == seen.workloads[0].template


def test_they_are_lowered_at_most_every_half_hour_and_for_more_than_a_tenth_only() -> None:
    first = turn(slots_spec(high=32), looked(24, 2))
    fewer = History(HOUR - 28 * 24, (2,) * 28 * 24)
    again = replace(applied(first), histories={of_tasks("worker/default"): fewer})
    assert turn(slots_spec(high=32), at(again, 29), first.status).reasons == []
    assert turn(slots_spec(high=32), at(again, 30), first.status).reasons == ["SlotsReleased"]
    flat = History(HOUR - 28 * 24, (36,) * 28 * 24)
    asked = number(turn(slots_spec(high=64), looked(40, 2, history=flat))) or 0
    assert turn(slots_spec(high=64), looked(asked + 1, 2, history=flat)).reasons == []


def test_what_runs_and_waits_now_counts_whatever_was_foreseen() -> None:
    busy = looked(24, 40)
    assert (number(turn(slots_spec(high=32), busy)) or 0) >= 20
    waiting = replace(busy, airflow=airflow(tasks(6, 40, duration=100.0)))
    assert (number(turn(slots_spec(high=32), waiting)) or 0) >= 23


SILENT = replace(looked(24), workloads=(replace(looked(24).workloads[0], pods=workers(24, slots=None)),))
OTHERS = worker(*workers(4), target="worker/other", name="airflow-worker-other", stated=Values(concurrency=4))


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (looked(24, history=known(100)), "the tasks of only 100 hours of the last week are known"),
        (looked(24, reading=True), "the past is still being read"),
        (looked(24, state=MetricsState.STALE), "the metrics are not fresh"),
        (looked(24, broker="The broker does not answer."), "not all workers say what they run"),
        (SILENT, "not all workers say what they run"),
        (looked(24, airflow=airflow(tasks(0, 2, critical=3.0))), "the database is slow"),
        (replace(looked(24), workloads=(*looked(24).workloads, OTHERS)), "other workers take tasks from its queues"),
    ],
)
def test_where_not_all_is_known_or_usual_they_stay_and_it_is_said(seen: Observation, why: str) -> None:
    last = turn(slots_spec(high=32), seen)
    assert (last.reasons, number(last)) == ([], 24)
    assert why in assessed(last.seen).hold


def test_for_a_day_after_the_user_has_changed_the_template_they_stay() -> None:
    first = turn(slots_spec(high=32), looked(20, history=known(24)))
    seen = looked(24)
    told = turn(slots_spec(high=32), seen, first.status)
    after = replace(seen, workloads=told.seen.workloads)
    assert turn(slots_spec(high=32), at(after, 23 * 60), told.status).reasons == []
    assert turn(slots_spec(high=32), at(after, 24 * 60), told.status).reasons == ["SlotsReleased"]


@pytest.mark.parametrize(
    ("policy", "fields"),
    [
        (slots_spec(high=32, mode="Recommend"), {}),
        (slots_spec(high=32), {"broker": None}),
        (slots_spec(high=32), {"autoscalers": (Autoscaler("ScaledObject", "keda", "StatefulSet/airflow-worker"),)}),
    ],
)
def test_where_slots_are_not_set_live_or_another_changes_the_workers_they_do_not_follow_the_hours(
    policy: api.Spec, fields: dict[str, Any]
) -> None:
    assert turn(policy, looked(24, **fields)).reasons == []
    assert turn(policy, at(looked(8, **fields), 55)).reasons == []


@pytest.mark.parametrize("cause", [{"critical": 3.0}, {"section": 3.0}])
def test_a_slow_database_is_given_no_more_tasks(cause: dict[str, float]) -> None:
    waits = replace(
        worker(pod("s", usage=usage(cpu=0.01))), target="scheduler", component="scheduler", name="airflow-scheduler"
    )
    seen = looked(8, airflow=airflow(tasks(0, 2, **cause)))
    assert turn(slots_spec(high=32), at(replace(seen, workloads=(*seen.workloads, waits)), 55)).reasons == []


def test_they_rise_no_further_than_the_policys_bounds_and_its_memory() -> None:
    assert number(turn(slots_spec(high=12), at(looked(), 55))) == 12
    small = turn(slots_spec(high=32, memory_max="4100Mi"), at(looked(8, history=known(busy=90)), 55))
    assert small.limit <= 4100
    assert (number(small) or 0) < 45


@given(
    st.lists(st.none() | st.integers(0, 200), min_size=24, max_size=400),
    st.integers(0, 120),
    st.integers(1, 64),
    st.integers(1, 8),
)
def test_whatever_was_foreseen_no_fewer_slots_than_tasks_run(
    peaks: list[int | None], running: int, number_of: int, low: int
) -> None:
    running = min(running, 2 * number_of)
    seen = looked(number_of, running, history=History(HOUR - len(peaks), tuple(peaks)))
    policy = slots_spec(low=low, high=64, memory_max="64Gi")
    last = turn(policy, seen)
    after = number(last) or 0
    assert after == number_of or low <= after <= 64
    assert 2 * after >= min(running, 2 * number_of)
    assert turn(policy, applied(last), last.status).reasons in ([], ["MemoryReleased"])
    assert (last.target.desired.memory.limit or 0) >= 4096 * MI


def test_while_a_dag_runs_away_the_slots_that_the_template_states_are_there_again() -> None:
    wild = tasks(30, 10, duration=12.0, paces=(Pace("loops", 4200, 120),), pace=4200)
    seen = looked(16, 10, airflow=airflow(wild))
    group = replace(seen.workloads[0], pods=workers(5, 5))
    first = turn(slots_spec(high=32), looked(16, 2))
    assert number(first) == 5
    last = turn(slots_spec(high=32), at(replace(seen, workloads=(group,)), 40), first.status)
    assert (last.reasons, number(last)) == (["SlotsReturned"], 16)
    assert "as its template states: 4200 tasks of the DAG loops" in last.target.why
    full = replace(group, pods=workers(16, 16))
    assert turn(slots_spec(high=32), at(replace(seen, workloads=(full,)), 42), last.status).reasons == []

"""Memory from its history: raised before the peak that is foreseen, released after it, never on missing evidence."""

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from airflow_tuner import api, status
from airflow_tuner.forecast import DAY, WEEK
from airflow_tuner.history import History, hour_of
from airflow_tuner.model import MetricsState, Observation, Pod, Sample, Values, Workload
from airflow_tuner.probe import COMMANDS, Probe
from core.worlds import (
    MI,
    NOW,
    Turn,
    airflow,
    applied,
    memory,
    observed,
    pod,
    scheduler,
    slots,
    slots_spec,
    spec,
    tasks,
    turn,
    usage,
    worker,
)

HOUR = timedelta(hours=1)
FORESEEN = dict.fromkeys(range(24), 400) | {2: 1500}
"""MiB at each hour of the day."""


def weeks(hours: int = 4 * WEEK, daily: dict[int, int] = FORESEEN) -> History:
    """A load that is the same every day, up to noon of today."""
    first = hour_of(NOW) - hours
    return History(first, tuple(daily[(first + hour) % DAY] for hour in range(hours)))


def asked(
    *pods: Pod,
    at_hour: int = 12,
    history: History | None = None,
    of: Workload | None = None,
    **fields: Any,  # noqa: ANN401 - any field of the observation
) -> Observation:
    """A look at a worker with a history, at this hour of today."""
    workload = of or worker(*(pods or (holding(300),)), request=2048, limit=4096, stated=Values(concurrency=2))
    known = weeks() if history is None else history
    at = NOW + (at_hour - 12) * HOUR
    pods = tuple(replace(one, usage=later(one, at)) for one in workload.pods)
    return observed(replace(workload, pods=pods), at=at, histories={workload.target: known}, **fields)


def later(one: Pod, at: Any) -> Any:  # noqa: ANN401 - a time, and a usage
    return usage(at=at, anonymous=None if one.usage.anonymous is None else one.usage.anonymous.value / MI)


def holding(size: float | None, request: int = 2048, limit: int = 4096, **fields: Any) -> Pod:  # noqa: ANN401 - any field of the pod
    name = fields.pop("name", "airflow-worker-0")
    return pod(name, request=request, limit=limit, usage=usage(anonymous=size), **fields)


def test_memory_that_the_coming_hours_do_not_take_is_released() -> None:
    last = turn(spec("256Mi", "8Gi"), asked())
    assert last.reasons == ["MemoryReleased"]
    assert (last.request, last.limit) == (412, 1755)
    assert "from the hourly peaks of 28.0 days, the next 3 hours take 412 MiB usually" in last.target.why
    assert turn(spec("256Mi", "8Gi"), applied(last, seconds=30), last.status).reasons == []


def test_memory_is_raised_before_the_peak_that_is_foreseen() -> None:
    small = worker(holding(300, 412, 600), request=412, limit=600)
    noon = turn(spec("256Mi", "8Gi"), asked(of=small))
    assert (noon.reasons, noon.request, noon.limit) == (["MemoryForecast"], 412, 1755)
    night = turn(spec("256Mi", "8Gi"), asked(of=small, at_hour=24))
    assert (night.reasons, night.request, night.limit) == (["MemoryForecast"], 618, 1755)


def test_a_request_rises_step_by_step_and_the_limit_at_once() -> None:
    small = worker(holding(300, 412, 600), request=412, limit=600)
    seen = asked(of=small, at_hour=24, history=weeks())
    last = turn(spec("256Mi", "8Gi"), seen)
    again = turn(spec("256Mi", "8Gi"), applied(last, seconds=601), last.status)
    assert (again.reasons, again.request) == (["MemoryForecast"], 927)
    soon = turn(spec("256Mi", "8Gi"), applied(last, seconds=599), last.status)
    assert soon.reasons == []


def test_a_limit_that_may_have_to_carry_more_tasks_than_are_known_is_not_lowered() -> None:
    of = worker(holding(300), request=2048, limit=4096)
    last = turn(spec("256Mi", "8Gi"), asked(of=of))
    assert (last.reasons, last.request, last.limit) == (["MemoryReleased"], 412, 4096)


def test_what_is_held_now_counts_whatever_was_foreseen() -> None:
    last = turn(spec("256Mi", "8Gi"), asked(holding(3000)))
    assert (last.reasons, last.request, last.limit) == (["MemoryForecast"], 3000, 4096)


def test_the_bounds_hold() -> None:
    assert turn(spec("1Gi", "8Gi"), asked()).request == 1024
    small = worker(holding(300, 412, 600), request=412, limit=600)
    night = asked(of=small, at_hour=24, history=weeks())
    assert turn(spec("256Mi", "1Gi"), night).limit == 1024


def test_a_limit_carries_all_slots_of_a_worker_whatever_was_foreseen() -> None:
    of = replace(worker(holding(300, slots=slots(16, busy=1)), request=2048, limit=4096), stated=Values(concurrency=16))
    seen = asked(of=of, airflow=airflow(tasks(0, 1)), broker="", history=weeks(daily=dict.fromkeys(range(24), 400)))
    last = turn(slots_spec(memory_min="256Mi", memory_max="8Gi"), seen)
    assert (last.reasons, last.limit) == (["MemoryReleased"], 255 + 16 * 86 + 130)
    assert "The limit is what 16 busy slots take" in last.target.why


@pytest.mark.parametrize(
    "seen",
    [
        asked(history=weeks(6 * DAY)),
        asked(state=MetricsState.STALE),
        asked(holding(None)),
        asked(holding(300), holding(None, name="airflow-worker-1")),
        asked(of=worker(request=2048, limit=4096)),
    ],
)
def test_nothing_is_released_on_missing_evidence(seen: Observation) -> None:
    last = turn(spec("256Mi", "8Gi"), seen)
    assert (last.reasons, last.limit) == ([], 4096)


def test_without_a_limit_or_a_history_nothing_is_foreseen() -> None:
    bare = worker(pod(request=None, limit=None), request=None, limit=None)
    assert turn(spec("256Mi", "8Gi"), asked(of=bare)).reasons == []
    assert turn(spec("256Mi", "8Gi"), asked(history=History())).reasons == []


def test_a_leak_is_neither_sized_up_nor_answered_with_less() -> None:
    grown = replace(usage(anonymous=1000), growth_days=Sample(10 * MI / 3600, NOW))
    of = scheduler(
        pod(request=512, limit=1050, usage=grown, started=NOW - timedelta(hours=60)), request=512, limit=1050
    )
    history = {of.target: weeks(daily=dict.fromkeys(range(24), 400))}
    policy = spec(workers=[], scheduler={"memory": {"min": "256Mi", "max": "8Gi"}})
    last = turn(policy, observed(of, histories=history))
    assert last.reasons == []
    assert "MemoryLeakSuspected" in last.found


def test_after_a_kill_nothing_is_released_for_six_hours() -> None:
    policy = spec("256Mi", "8Gi", changes={"cooldown": {"lowerSeconds": 300}})
    killed = turn(policy, asked(holding(300, died=NOW)))
    assert (killed.reasons, killed.limit) == (["OutOfMemory"], 6144)
    calm = applied(killed, seconds=5 * 3600)
    assert turn(policy, refreshed(calm), killed.status).reasons == []
    late = turn(policy, refreshed(applied(killed, seconds=7 * 3600)), killed.status)
    assert late.reasons == ["MemoryReleased"]
    assert (late.request, late.limit) == (412, 6144), "what was killed for counts as wanted, and so the limit stays"


def test_what_the_user_has_just_set_is_not_lowered_for_a_day() -> None:
    policy = spec("256Mi", "8Gi")
    before = turn(policy, asked(state=MetricsState.STALE))
    (workload,) = before.seen.workloads
    larger: dict[str, Any] = {
        "requests": {"memory": "3Gi"},
        "limits": {"memory": "6Gi"},
        "template": memory(3072, 6144),
    }
    pods = tuple(replace(one, memory=memory(3072, 6144), running=memory(3072, 6144)) for one in workload.pods)
    changed = replace(asked(), workloads=(replace(workload, pods=pods, **larger),))
    first = turn(policy, changed, before.status)
    assert first.reasons == []
    later = [turn(policy, refreshed(applied(first, seconds=60 * minutes)), first.status) for minutes in (1, 1430, 1450)]
    assert [one.reasons for one in later] == [[], [], ["MemoryReleased"]]


def refreshed(seen: Observation) -> Observation:
    """With samples of the moment."""
    (workload,) = seen.workloads
    pods = tuple(replace(one, usage=later(one, seen.at)) for one in workload.pods)
    return replace(seen, workloads=(replace(workload, pods=pods),))


def test_a_running_pod_is_lowered_only_as_far_as_it_has_given_back() -> None:
    last = turn(spec("256Mi", "8Gi"), asked())
    (target,) = last.decision.targets
    (running,) = target.workload.pods
    assert status.resized(target, running) == memory(412, 1755)
    full = replace(running, usage=usage(anonymous=1700))
    assert status.resized(target, full) == memory(2048, 4096)
    unknown = replace(running, usage=usage())
    assert status.resized(target, unknown) == memory(2048, 4096)
    theirs = replace(running, foreign=True)
    assert status.resized(target, theirs) == memory(2048, 4096)


def test_guaranteed_pods_and_policies_that_ask_for_it_keep_request_and_limit_equal() -> None:
    guaranteed = holding(300, 4096, 4096, guaranteed=True)
    of = worker(guaranteed, request=4096, limit=4096, stated=Values(concurrency=2))
    last = turn(spec("256Mi", "8Gi"), asked(of=of))
    assert (last.request, last.limit) == (1755, 1755)
    workers = [{"name": "default", "memory": {"min": "256Mi", "max": "8Gi", "limitEqualsRequest": True}}]
    stated = turn(spec(workers=workers), asked())
    assert (stated.request, stated.limit) == (1755, 1755)


def test_the_probe_of_a_scheduler_is_given_its_room() -> None:
    of = scheduler(holding(300), request=2048, limit=4096, probe=Probe(COMMANDS[0], timeout=20, failures=5))
    policy = spec(workers=[], scheduler={"memory": {"min": "256Mi", "max": "8Gi"}})
    assert turn(policy, asked(of=of)).limit == 1755 + 130


def test_mode_recommend_advises_and_changes_nothing() -> None:
    policy = spec("256Mi", "8Gi", mode="Recommend")
    last = turn(policy, asked())
    assert (last.limit, last.target.tuned, last.reasons) == (1755, None, ["MemoryReleased"])
    assert "MemoryReleased" not in [change.reason for change in last.status.history]
    assert turn(policy, replace(last.seen, at=NOW + timedelta(seconds=30)), last.status).reasons == []


def test_the_user_says_at_what_risk() -> None:
    chance = random.Random(7)  # noqa: S311 - a load, not a secret
    peaks = tuple(400 + int(60 * (chance.paretovariate(3) - 1)) for _ in range(4 * WEEK))
    history = History(hour_of(NOW) - 4 * WEEK, peaks)
    risks = [turn(risky(days), asked(history=history)).limit for days in (7, 60, 3650)]
    assert risks == sorted(risks)
    assert risks[0] < risks[-1]


def risky(days: int) -> api.Spec:
    return spec("256Mi", "8Gi", objectives={"daysPerOutOfMemory": days})


def test_hour_by_hour_through_a_day_there_are_few_changes_and_no_peak_above_the_limit() -> None:
    policy = spec("256Mi", "8Gi")
    history, last, changes = weeks(), None, 0
    workload: Workload = worker(holding(300), request=2048, limit=4096)
    prior: api.Status | None = None
    for step in range(24 * 6):
        at = NOW + step * timedelta(minutes=10)
        peak = FORESEEN[hour_of(at) % DAY]
        pods = tuple(replace(one, usage=usage(at=at, anonymous=peak)) for one in workload.pods)
        seen = observed(replace(workload, pods=pods), at=at, histories={workload.target: history})
        last = turn(policy, seen, prior)
        changes += len(last.reasons)
        prior, history = last.status, last.seen.histories[workload.target]
        workload = applied(last).workloads[0]
        limits = [one.memory.limit or 0 for one in workload.pods]
        assert min(limits) >= peak * MI
    assert isinstance(last, Turn)
    assert changes <= 6

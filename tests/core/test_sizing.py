"""Memory from its history: raised before the peak that is foreseen, released after it, never on missing evidence."""

import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from airflow_tuner import api, decide, status
from airflow_tuner.forecast import DAY, WEEK
from airflow_tuner.history import History, hour_of
from airflow_tuner.model import Cpu, MetricsState, Observation, Pod, Sample, Values, Workload
from airflow_tuner.probe import COMMANDS, Probe
from airflow_tuner.steps import Bounds
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


def seen_at(last: Turn, hour: int, minute: int) -> Observation:
    """What was decided is in force, at this time of today, and as much is held."""
    at = NOW + (hour - 12) * HOUR + timedelta(minutes=minute)
    (workload,) = applied(last).workloads
    pods = tuple(replace(one, usage=later(one, at)) for one in workload.pods)
    return replace(last.seen, at=at, workloads=(replace(workload, pods=pods),))


def allowed(low: str = "256Mi", high: str = "8Gi", **fields: Any) -> api.Spec:  # noqa: ANN401 - any field of the spec
    """A policy with wide bounds: memory may be released."""
    return spec(low, high, **fields)


def holding(size: float | None, request: int = 2048, limit: int = 4096, **fields: Any) -> Pod:  # noqa: ANN401 - any field of the pod
    name = fields.pop("name", "airflow-worker-0")
    return pod(name, request=request, limit=limit, usage=usage(anonymous=size), **fields)


def test_memory_that_the_coming_hours_do_not_take_is_released() -> None:
    last = turn(allowed(), asked())
    assert last.reasons == ["MemoryReleased"]
    # The limit stays above the most of the last day.
    assert (last.request, last.limit) == (412, 1681)
    assert "from the hourly peaks of 28.0 days, this hour takes 412 MiB usually, and the next 8 h" in last.target.why
    assert turn(allowed(), applied(last, seconds=30), last.status).reasons == []


def test_memory_is_raised_before_the_peak_that_is_foreseen() -> None:
    small = worker(holding(300, 412, 600), request=412, limit=600)
    assert turn(allowed(), asked(of=small, at_hour=18)).reasons == []
    evening = turn(allowed(), asked(of=small, at_hour=19))
    assert (evening.reasons, evening.request, evening.limit) == (["MemoryForecast"], 412, 1755)
    assert turn(allowed(), seen_at(evening, 25, 49), evening.status).reasons == []
    night = turn(allowed(), seen_at(evening, 25, 50), evening.status)
    assert (night.reasons, night.request, night.limit) == (["MemoryForecast"], 618, 1755)
    assert "the 2 hours from this one on take 1545 MiB usually" in night.target.why


def test_a_request_rises_step_by_step_and_the_limit_at_once() -> None:
    small = worker(holding(300, 412, 600), request=412, limit=600)
    seen = asked(of=small, at_hour=26, history=weeks())
    last = turn(allowed(), seen)
    again = turn(allowed(), applied(last, seconds=601), last.status)
    assert (again.reasons, again.request) == (["MemoryForecast"], 927)
    soon = turn(allowed(), applied(last, seconds=599), last.status)
    assert soon.reasons == []


def test_a_limit_that_may_have_to_carry_more_tasks_than_are_known_is_not_lowered() -> None:
    of = worker(holding(300), request=2048, limit=4096)
    last = turn(allowed(), asked(of=of))
    assert (last.reasons, last.request, last.limit) == (["MemoryReleased"], 412, 4096)


def test_what_is_held_now_counts_whatever_was_foreseen() -> None:
    last = turn(allowed(), asked(holding(3000)))
    assert (last.reasons, last.request, last.limit) == (["MemoryForecast"], 3000, 4096)


def test_the_bounds_hold() -> None:
    assert turn(allowed("1Gi"), asked()).request == 1024
    small = worker(holding(300, 412, 600), request=412, limit=600)
    night = asked(of=small, at_hour=24, history=weeks())
    assert turn(allowed("256Mi", "1Gi"), night).limit == 1024


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
    last = turn(allowed(), seen)
    assert (last.reasons, last.limit) == ([], 4096)


def test_where_the_policy_forbids_it_memory_is_only_raised_and_it_is_said() -> None:
    policy = spec("256Mi", "8Gi", changes={"releases": False})
    last = turn(policy, asked())
    assert (last.reasons, last.limit) == ([], 4096)
    bounds = Bounds("workers/default", 256 * MI, 8192 * MI)
    item = decide.item_of(policy, bounds, last.target.workload, last.seen, api.Status())
    assert item.sizing.hold == "Less would do, but the policy forbids it (changes.releases: false)."


def test_nothing_is_released_in_the_turn_that_sees_a_kill_at_the_policys_maximum() -> None:
    killed = asked(holding(300, died=NOW - timedelta(seconds=20)))
    last = turn(allowed(high="4Gi"), killed)
    assert last.reasons == []
    process = replace(usage(anonymous=300, kills=1, before=0, peak=4096))
    (workload,) = killed.workloads
    one = replace(workload, pods=(pod(request=2048, limit=4096, usage=process),))
    assert turn(allowed(high="4Gi"), replace(killed, workloads=(one,))).reasons == []


def test_what_was_only_recommended_is_no_decrease_when_the_mode_becomes_enforce() -> None:
    advised = turn(spec("256Mi", "8Gi", mode="Recommend"), asked())
    assert advised.limit == 1755
    blind = asked(holding(None), state=MetricsState.UNAVAILABLE, history=History())
    enforced = turn(allowed(), replace(blind, at=NOW + timedelta(days=30)), advised.status)
    assert (enforced.reasons, enforced.limit, enforced.target.tuned) == ([], 4096, None)


@pytest.mark.parametrize(
    "old", [(1500, 7 * DAY, 6 * WEEK), (300, 3 * WEEK, 3 * WEEK)], ids=["a week long ago", "nothing of late"]
)
def test_a_week_counts_only_where_it_was_the_last_one(old: tuple[int, int, int]) -> None:
    size, known, gap = old
    peaks = (size,) * known + (None,) * (gap - DAY) + (300,) * (DAY if size > 1000 else 0)
    history = History(hour_of(NOW) - len(peaks), peaks)
    assert turn(allowed(), asked(history=history)).reasons == []


def test_while_the_past_is_still_read_nothing_is_released() -> None:
    assert turn(allowed(), asked(reading=True)).reasons == []


def test_what_was_held_today_stays_whatever_a_rule_foresees() -> None:
    full = replace(usage(anonymous=300), anonymous_day=Sample(3000 * MI, NOW))
    of = scheduler(pod(request=2048, limit=4096, usage=full), request=2048, limit=4096)
    policy = spec(workers=[], scheduler={"memory": {"min": "256Mi", "max": "8Gi"}})
    seen = observed(of, worker(), histories={"scheduler": weeks()})
    assert turn(policy, seen).decision.targets[0].desired.memory.limit == 3331 * MI


def test_another_workload_under_the_same_name_begins_without_a_history() -> None:
    last = turn(spec("256Mi", "8Gi"), asked())
    other = replace(last.target.workload, name="other-worker")
    seen = replace(last.seen, workloads=(other,), at=NOW + timedelta(seconds=30))
    assert turn(allowed(), seen, last.status).reasons == []


def test_after_the_node_was_short_of_memory_its_request_stays_for_a_day() -> None:
    policy = allowed(changes={"cooldown": {"lowerSeconds": 300, "raiseSeconds": 0}})
    moments = api.Moments(any=(NOW - timedelta(hours=5)).isoformat(), pressed=(NOW - timedelta(hours=5)).isoformat())
    first = turn(policy, asked(state=MetricsState.STALE))
    (entry,) = first.status.targets
    prior = first.status.model_copy(update={"targets": [entry.model_copy(update={"changed": moments})]})
    assert turn(policy, asked(), prior).reasons == []


def test_where_it_is_not_known_what_runs_tasks_a_schedulers_limit_is_not_lowered() -> None:
    of = scheduler(holding(300), request=2048, limit=4096)
    policy = spec(workers=[], scheduler={"memory": {"min": "256Mi", "max": "8Gi"}})
    assert turn(policy, asked(of=of)).limit == 4096
    beside = replace(asked(of=of), workloads=(*asked(of=of).workloads, worker()))
    assert turn(policy, beside).decision.targets[0].desired.memory.limit == 1681 * MI


def test_without_a_limit_or_a_history_nothing_is_foreseen() -> None:
    bare = worker(pod(request=None, limit=None), request=None, limit=None)
    assert turn(allowed(), asked(of=bare)).reasons == []
    assert turn(allowed(), asked(history=History())).reasons == []


def test_for_a_leak_no_limit_moves_and_the_request_tells_what_is_held() -> None:
    grown = replace(usage(anonymous=1000), growth_days=Sample(10 * MI / 3600, NOW))
    of = scheduler(
        pod(request=512, limit=1050, usage=grown, started=NOW - timedelta(hours=60)), request=512, limit=1050
    )
    history = {of.target: weeks(daily=dict.fromkeys(range(24), 400))}
    policy = spec(workers=[], scheduler={"memory": {"min": "256Mi", "max": "8Gi"}})
    last = turn(policy, observed(of, histories=history))
    assert (last.reasons, last.request, last.limit) == (["MemoryForecast"], 768, 1050)
    assert "usually beside 600 MiB that a pod has leaked, and the next" in last.decision.changes[0].message
    assert "MemoryLeakSuspected" in last.found
    of = scheduler(
        pod(request=2000, limit=4000, usage=grown, started=NOW - timedelta(hours=60)), request=2000, limit=4000
    )
    last = turn(policy, observed(of, histories=history))
    assert (last.reasons, last.request, last.limit) == (["MemoryReleased"], 1012, 4000)


def test_what_cannot_have_leaked_since_the_start_is_not_requested() -> None:
    grown = replace(usage(anonymous=400), growth_days=Sample(10 * MI / 3600, NOW))
    of = scheduler(pod(request=512, limit=4000, usage=grown, started=NOW - timedelta(days=20)), request=512, limit=4000)
    policy = spec(workers=[], scheduler={"memory": {"min": "256Mi", "max": "8Gi"}})
    last = turn(policy, observed(of, histories={of.target: weeks(daily=dict.fromkeys(range(24), 400))}))
    assert "leaked" not in " ".join(change.message for change in last.decision.changes)
    assert last.request <= 512
    assert last.limit == 4000, "but it leaks"


def test_after_a_kill_nothing_is_released_for_six_hours() -> None:
    policy = allowed(changes={"cooldown": {"lowerSeconds": 300}})
    killed = turn(policy, asked(holding(300, died=NOW)))
    assert (killed.reasons, killed.limit) == (["OutOfMemory"], 6144)
    calm = applied(killed, seconds=5 * 3600)
    assert turn(policy, refreshed(calm), killed.status).reasons == []
    late = turn(policy, refreshed(applied(killed, seconds=7 * 3600)), killed.status)
    assert late.reasons == ["MemoryReleased"]
    assert (late.request, late.limit) == (412, 6144), "what was killed for counts as wanted, and so the limit stays"


def test_what_the_user_has_just_set_is_not_lowered_for_a_day() -> None:
    policy = allowed()
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
    last = turn(allowed(), asked())
    (target,) = last.decision.targets
    (running,) = target.workload.pods
    assert status.resized(target, running) == memory(412, 1681)
    full = replace(running, usage=usage(anonymous=1700))
    assert status.resized(target, full) == memory(2048, 4096)
    unknown = replace(running, usage=usage())
    assert status.resized(target, unknown) == memory(2048, 4096)
    theirs = replace(running, foreign=True)
    assert status.resized(target, theirs) == memory(2048, 4096)


def test_guaranteed_pods_and_policies_that_ask_for_it_keep_request_and_limit_equal() -> None:
    guaranteed = holding(300, 4096, 4096, guaranteed=True)
    of = worker(guaranteed, request=4096, limit=4096, stated=Values(concurrency=2))
    last = turn(allowed(), asked(of=of))
    assert (last.request, last.limit) == (1681, 1681)
    workers = [{"name": "default", "memory": {"min": "256Mi", "max": "8Gi", "limitEqualsRequest": True}}]
    stated = turn(spec(workers=workers), asked())
    assert (stated.request, stated.limit) == (1681, 1681)


def test_the_probe_of_a_scheduler_is_given_its_room() -> None:
    of = scheduler(holding(300), request=2048, limit=4096, probe=Probe(COMMANDS[0], timeout=20, failures=5))
    policy = spec(workers=[], scheduler={"memory": {"min": "256Mi", "max": "8Gi"}})
    beside = replace(asked(of=of), workloads=(*asked(of=of).workloads, worker()))
    assert turn(policy, beside).limit == 1681
    night = replace(asked(of=of, at_hour=26), workloads=(*asked(of=of, at_hour=26).workloads, worker()))
    assert turn(policy, night).limit == 1755 + 130


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
    return allowed(objectives={"daysPerOutOfMemory": days})


def test_hour_by_hour_through_a_day_there_are_few_changes_and_no_peak_above_the_limit() -> None:
    policy = allowed()
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


def test_nothing_is_released_while_a_worker_does_not_say_how_many_slots_it_has() -> None:
    policy = slots_spec(memory_min="256Mi", memory_max="8Gi")
    for silent, reasons in ((False, ["MemoryReleased"]), (True, [])):
        pods = [holding(300, name=f"w{number}", slots=slots(4, busy=1)) for number in range(2)]
        if silent:
            # It may still have the sixteen that were decided before.
            pods[1] = replace(pods[1], slots=None)
        of = replace(worker(*pods, request=2048, limit=4096), stated=Values(concurrency=4))
        assert turn(policy, asked(of=of, airflow=airflow(tasks(0, 2)), broker="")).reasons == reasons, silent


def test_nothing_is_released_while_it_is_not_known_which_dags_are_due() -> None:
    assert turn(allowed(), asked(calendar="")).reasons == ["MemoryReleased"]
    assert turn(allowed(), asked(calendar="It does not answer.")).reasons == []


def test_a_step_of_cpu_lowers_no_running_pod_to_the_memory_of_a_template_that_counts_again() -> None:
    entry = [{"name": "default", "memory": {"min": "256Mi", "max": "8Gi"}, "cpu": {"min": "1", "max": "2"}}]
    cpu = Cpu(250, None)
    raised = holding(300, 2048, 6144, resized=True, cpu=cpu, running_cpu=cpu)
    of = worker(raised, request=2048, limit=4096, requests={"memory": "2Gi", "cpu": "250m"}, stated=Values(cpu=cpu))
    before = turn(allowed(), observed(replace(of, pods=(holding(300, 2048, 4096),)))).status
    last = turn(spec(workers=entry), observed(of), before)
    assert (last.reasons, last.limit) == (["BelowMinimum"], 4096)
    assert status.resized(last.target, last.target.workload.pods[0]) == memory(2048, 6144)

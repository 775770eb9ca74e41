"""Findings about limits that do not fit what the containers hold."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from airflow_tuner import api
from airflow_tuner.model import Finding, Pod, Severity, Values, Workload
from core.worlds import (
    NOW,
    airflow,
    applied,
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

EXCEEDS, LOW, CACHE = "ConcurrencyExceedsMemory", "MemoryHeadroomLow", "PageCacheNotDemand"
WIDE = "MemoryOverprovisioned"
FITS = 255 + 16 * 86 + 130
"""MiB that 16 slots of an Airflow 3 need."""


def stated(*pods: Pod, of: int = 16, **fields: Any) -> Workload:  # noqa: ANN401 - any field of the workload
    """Workers whose template states the slots."""
    return worker(*pods, stated=Values(concurrency=of), **fields)


def found(reason: str, policy: api.Spec, *workloads: Workload, **fields: Any) -> list[Finding]:  # noqa: ANN401 - any field of the observation
    """The findings of a reason in one turn."""
    return [item for item in turn(policy, observed(*workloads, **fields)).findings if item.reason == reason]


# Slots that do not fit the limit.


def test_it_says_what_the_slots_need_and_how_many_the_limit_carries_also_where_only_memory_is_tuned() -> None:
    (finding,) = found(EXCEEDS, spec(), stated(pod("w0"), pod("w1", limit=2048)))
    assert (finding.severity, finding.target) == (Severity.WARNING, "worker/default")
    assert finding.message == (
        "16 slots do not fit the memory limit of 1024 MiB in 1 of 2 pods of StatefulSet/airflow-worker, e.g. w0: "
        "with all busy they need 255 MiB + 16 x 86 MiB + 130 MiB = 1761 MiB. The limit carries 7. Set "
        "worker_concurrency to 7 at most, or the limit to 1761 MiB at least. A kill is answered with a larger "
        "limit, up to memory.max = 4096 MiB. The slots are not tuned: the policy names no concurrency."
    )


def test_the_slots_that_it_advises_do_fit() -> None:
    assert found(EXCEEDS, spec(), stated(pod(), of=7)) == []
    assert found(EXCEEDS, spec(), stated(pod(), of=8))
    assert found(EXCEEDS, spec(), stated(pod(limit=FITS))) == []
    assert found(EXCEEDS, spec(), stated(pod(limit=FITS - 1)))


def test_a_slot_of_airflow_2_takes_more() -> None:
    assert found(EXCEEDS, spec(), stated(pod(limit=FITS)), line="2")


def test_slots_or_a_line_that_are_not_known_are_not_guessed() -> None:
    assert found(EXCEEDS, spec(), worker(pod(limit=200))) == []
    assert found(EXCEEDS, spec(), stated(pod(limit=200)), line=None) == []
    by_reference = worker(pod(limit=200), referenced=frozenset({api.EnvName.CONCURRENCY}))
    assert found(EXCEEDS, spec(), by_reference) == []


def test_nothing_is_said_without_a_limit_or_without_a_pod_that_runs() -> None:
    assert found(EXCEEDS, spec(), stated(pod(limit=None))) == []
    assert found(EXCEEDS, spec(), stated(pod(running=None))) == []
    assert found(EXCEEDS, spec(), stated()) == []
    assert found(EXCEEDS, spec(workers=[]), stated(pod())) == []


def test_each_worker_is_held_against_the_slots_it_has() -> None:
    busy = stated(pod("a", slots=slots(4, 0)), pod("b", slots=slots(16, 0)), of=4)
    (finding,) = found(EXCEEDS, slots_spec(), busy)
    assert "in 1 of 2 pods of StatefulSet/airflow-worker, e.g. b" in finding.message


def test_a_slot_that_was_measured_to_take_more_counts() -> None:
    full = stated(pod(slots=slots(4), usage=usage(anonymous=900)), of=4)
    (finding,) = found(EXCEEDS, slots_spec(), full, airflow=airflow(tasks(0, 4)))
    assert "255 MiB + 4 x 161 MiB + 130 MiB = 1030 MiB (a slot as measured here). The limit carries 3." in (
        finding.message
    )


def test_it_says_what_the_operator_will_do_and_why_not_more() -> None:
    workers = stated(pod(), of=16)

    def told(policy: api.Spec, *, workload: Workload = workers) -> str:
        (finding,) = found(EXCEEDS, policy, workload)
        return finding.message.partition("at least. ")[2]

    assert told(slots_spec()) == (
        "The limit follows with the next raise of slots, and a kill is answered with a larger limit, up to "
        "memory.max = 4096 MiB."
    )
    assert told(slots_spec(memory_max="1Gi")) == (
        "The limit is at memory.max = 1024 MiB: after a kill the slots come down, to 1 at least."
    )
    assert told(slots_spec(low=16, memory_max="1Gi")) == (
        "Nothing is left to change: the limit is at memory.max = 1024 MiB, the slots at concurrency.min."
    )
    assert told(spec(high="1Gi")) == (
        "The limit is at memory.max = 1024 MiB, and stays after a kill. The slots are not tuned: the policy names "
        "no concurrency."
    )
    assert told(spec(high="600Mi")) == ("The operator leaves it alone: its template is above memory.max = 600 MiB.")
    assert told(spec(mode="Recommend")) == "In mode Recommend the operator changes nothing."


def test_a_limit_that_carries_no_slot_is_told_with_what_one_needs() -> None:
    (finding,) = found(EXCEEDS, spec(low="128Mi"), stated(pod(limit=300), limit=300))
    assert "The limit carries none. Give it at least 471 MiB for one slot." in finding.message


def test_slots_that_were_raised_with_their_memory_are_never_told() -> None:
    seen = observed(
        stated(pod(slots=slots(4), usage=usage(cpu=0.1, node_cpu=0.1)), of=4, cpu_limit=4.0),
        scheduler(pod("s")),
        airflow=airflow(tasks(400, 4)),
    )
    last = turn(slots_spec(), seen)
    assert last.reasons == ["SlotsExhausted"]
    for _ in range(3):
        last = turn(slots_spec(), applied(last, seconds=70), last.status)
        assert EXCEEDS not in last.found
    assert (last.target.desired.concurrency or 0) > 4
    assert last.limit > 1024


def test_it_ends_when_a_larger_limit_is_in_force() -> None:
    last = turn(spec(), observed(stated(pod())))
    wide = stated(replace(pod(), running=pod(limit=FITS).running))
    assert last.found == [EXCEEDS]
    assert turn(spec(), observed(wide), last.status).found == []


# Little room.


def test_anonymous_memory_near_the_limit_is_told_before_anybody_dies() -> None:
    near = worker(pod("w0", usage=usage(anonymous_day=950)), pod("w1", usage=usage(anonymous_day=300)))
    (finding,) = found(LOW, spec(), near)
    assert (finding.severity, finding.target) == (Severity.WARNING, "worker/default")
    assert finding.message == (
        "1 of 2 pods of StatefulSet/airflow-worker held 90% of the memory limit or more within a day, page cache not "
        "counted: e.g. w0 950 MiB of 1024 MiB (93%). What takes 74 MiB more is killed. A kill is answered with a "
        "larger limit, up to memory.max = 4096 MiB. The slots are not tuned: the policy names no concurrency. To be "
        "spared that, raise the limit in the template, or give large tasks a queue of their own."
    )
    assert turn(spec(), observed(near)).reasons == [], "nothing is raised before a kill"


def test_little_room_begins_at_nine_tenths_of_the_limit_in_force() -> None:
    assert found(LOW, spec(), worker(pod(limit=1000, usage=usage(anonymous_day=900))))
    assert found(LOW, spec(), worker(pod(limit=1000, usage=usage(anonymous_day=899)))) == []
    assert found(LOW, spec(), worker(pod(limit=1000, usage=usage(anonymous=900))))
    raised = pod(limit=1000, running=pod(limit=1500).running, usage=usage(anonymous_day=900))
    assert found(LOW, spec(), worker(raised)) == []


def test_a_full_page_cache_leaves_room_enough() -> None:
    cached = worker(pod(usage=usage(peak=1024, working_set=1000, anonymous_day=800)))
    assert turn(spec(), observed(cached)).found == []


def test_who_was_killed_is_not_told_that_he_might_be() -> None:
    killed = usage(kills=1, peak=1024, anonymous_day=1000)
    assert turn(spec(), observed(worker(pod(usage=killed)))).found == ["OutOfMemory"]
    old = usage(kills=1, before=1, peak=1024, anonymous_day=1000)
    assert turn(spec(), observed(worker(pod(usage=old)))).status.findings[-1].reason == LOW


def test_room_is_not_told_where_limit_or_memory_is_not_known() -> None:
    assert found(LOW, spec(), worker(pod(usage=usage(working_set=1000)))) == []
    assert found(LOW, spec(), worker(pod(limit=None, usage=usage(anonymous_day=9000)), limit=None)) == []
    assert found(LOW, spec(workers=[]), worker(pod(usage=usage(anonymous_day=1000)))) == []


def test_a_scheduler_has_no_slots_and_no_queue() -> None:
    policy = spec(scheduler={"memory": {"min": "512Mi", "max": "1Gi"}}, workers=[])
    (finding,) = found(LOW, policy, scheduler(pod(usage=usage(anonymous_day=1000))))
    assert finding.message.endswith(
        "The limit is at memory.max = 1024 MiB, and stays after a kill. To be spared that, raise the limit in the "
        "template."
    )


# Page cache.


def test_a_working_set_of_page_cache_is_no_demand() -> None:
    cached = worker(pod("w0", usage=usage(peak=1024, working_set=960, anonymous_day=400)), pod("w1"))
    (finding,) = found(CACHE, spec(), cached)
    assert (finding.severity, finding.target) == (Severity.INFO, "worker/default")
    assert finding.message == (
        "The working set of 1 of 2 pods of StatefulSet/airflow-worker came near the limit within a day, and much of it "
        "was page cache: e.g. w0 had 960 MiB (at most 1024 MiB with all of its page cache) of 1024 MiB, of which it "
        "held at most 400 MiB itself. The kernel gives page cache back before it kills: nothing is raised for it."
    )
    assert turn(spec(), observed(cached)).reasons == []


def test_page_cache_is_told_only_where_it_looks_like_demand() -> None:
    def told(**values: Any) -> bool:  # noqa: ANN401 - any figure of the usage
        return bool(found(CACHE, spec(), worker(pod(limit=1000, usage=usage(**values)))))

    assert told(working_set=900, anonymous_day=600)
    assert not told(working_set=899, anonymous_day=600), (
        "every container's page cache grows: only what is active counts"
    )
    assert not told(working_set=900, anonymous_day=601)
    assert not told(peak=1000, anonymous_day=100)
    assert not told(working_set=900)
    assert not told(anonymous_day=100)


# More than is needed.


def seen_for_a_day(name: str = "w0", *, held: float = 400, request: int = 4096, limit: int = 4096, **of: Any) -> Pod:  # noqa: ANN401 - any figure of the usage
    """A pod that has run, and was watched, for more than a day."""
    figures = {"anonymous_day": held, "anonymous_before": 300, "kills": 0, **of}
    return pod(name, request=request, limit=limit, started=NOW - timedelta(days=2), usage=usage(**figures))


def test_a_request_far_above_a_days_need_is_told_with_what_would_do() -> None:
    idle = worker(seen_for_a_day("w0"), seen_for_a_day("w1", held=500), request=4096, limit=4096)
    (finding,) = found(WIDE, spec(), idle)
    assert (finding.severity, finding.target) == (Severity.INFO, "worker/default")
    assert finding.message == (
        "2 pods of StatefulSet/airflow-worker held at most 500 MiB within a day, page cache not counted: 755 MiB would "
        "do. The request is 4096 MiB, the limit 4096 MiB. A request of that size would free 6682 MiB on the nodes. The "
        "operator releases what the coming hours do not take. It waits for a forecast from a week of hourly peaks."
    )
    assert turn(spec(), observed(idle)).reasons == [], "nothing is lowered"


def test_a_limit_is_too_large_from_four_times_what_would_do() -> None:
    def told(limit: int) -> list[Finding]:
        return found(WIDE, spec(), worker(seen_for_a_day(request=512, limit=limit)))

    assert told(4 * 630) == []
    (finding,) = told(4 * 630 + 1)
    assert "The request is not too large; such a limit lets a pod take" in finding.message


def test_a_request_is_too_large_from_twice_what_would_do_and_half_a_gibibyte() -> None:
    assert found(WIDE, spec(), worker(seen_for_a_day(request=1260, limit=1300))) == []
    assert found(WIDE, spec(), worker(seen_for_a_day(request=1261, limit=1300)))
    small: dict[str, Any] = {"held": 100, "limit": 1000}
    assert found(WIDE, spec(low="128Mi"), worker(seen_for_a_day(request=766, **small))) == []
    assert found(WIDE, spec(low="128Mi"), worker(seen_for_a_day(request=767, **small)))


def test_slots_that_were_not_busy_within_the_day_count_as_if_they_were() -> None:
    assert found(WIDE, spec(), stated(seen_for_a_day(request=2048))) == []
    assert found(WIDE, spec(), stated(seen_for_a_day(request=2048), of=4))


def test_no_less_than_the_policys_minimum_would_do() -> None:
    assert found(WIDE, spec(low="3Gi"), worker(seen_for_a_day())) == []


def test_too_much_is_told_only_where_the_whole_day_of_every_pod_is_known() -> None:
    good = seen_for_a_day()
    assert found(WIDE, spec(), worker(good))
    for other in (
        replace(good, started=NOW - timedelta(hours=23)),
        replace(good, started=None),
        replace(good, usage=replace(good.usage, anonymous_before=None)),
        replace(good, usage=replace(good.usage, anonymous_day=None)),
        seen_for_a_day(kills=2, before=2),
    ):
        assert found(WIDE, spec(), worker(other)) == []
        assert found(WIDE, spec(), worker(good, replace(other, name="w1"))) == []
    assert found(WIDE, spec(), worker()) == []


def test_nothing_is_too_much_within_a_week_of_a_kill() -> None:
    dead = pod(request=2048, limit=2048, died=NOW)
    last = turn(spec(), observed(worker(dead, request=2048, limit=2048)))
    assert last.reasons == ["OutOfMemory"]

    def told(days: float) -> bool:
        at = NOW + timedelta(days=days)
        calm = replace(seen_for_a_day(request=2048, limit=3072), started=NOW + timedelta(days=1), resized=True)
        seen = observed(worker(calm, request=2048, limit=2048), at=at)
        return WIDE in turn(spec(), seen, last.status).found

    assert not told(6.9)
    assert told(7.1)

"""What holds whatever is seen: less evidence takes nothing away, more of it never gives less, and room only bounds."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from airflow_tuner import api
from airflow_tuner.history import History
from airflow_tuner.model import Death, MetricsState, Observation, Values
from airflow_tuner.room import LIMITS, REQUESTS, Node, Quota, Range, Room
from core.test_concurrency import CALM, number, worlds
from core.test_sizing import FORESEEN, weeks
from core.worlds import MI, NOW, airflow, observed, pod, slots, slots_spec, tasks, turn, usage, worker

POLICY = slots_spec(memory_min="256Mi", memory_max="8Gi", changes={"releases": True})


def rich(request: int = 3000, limit: int = 4096, slots_: int = 8, **fields: Any) -> Observation:  # noqa: ANN401 - any field of the usage
    """Two workers of which everything is known: they have far more memory and slots than they ever used."""
    known = usage(**{"anonymous": 300, "anonymous_day": 320, **CALM, **fields})
    pods = [
        pod(
            f"airflow-worker-{index}",
            request=request,
            limit=limit,
            slots=slots(slots_, busy=0, autoscaled=False),
            usage=known,
            node="a",
        )
        for index in range(2)
    ]
    workload = worker(*pods, request=request, limit=limit, stated=Values(concurrency=slots_), replicas=2)
    idle = airflow(tasks(0, 0, busy_day=1))
    return observed(workload, airflow=idle, broker="", histories={"worker/default": weeks()})


def without(seen: Observation, pods: int = 2, **fields: Any) -> Observation:  # noqa: ANN401 - any field of the usage
    """The same, with these facts about so many of the pods unknown."""
    (workload,) = seen.workloads
    changed = [replace(one, usage=replace(one.usage, **fields)) for one in workload.pods[:pods]]
    return replace(seen, workloads=(replace(workload, pods=(*changed, *workload.pods[pods:])),))


def blank(history: History) -> History:
    """Its last week was not seen."""
    return replace(history, peaks=(*history.peaks[: -6 * 24], *[None] * (6 * 24)))


LOSSES: dict[str, Callable[[Observation], Observation]] = {
    "the metrics": lambda seen: replace(seen, metrics=replace(seen.metrics, state=MetricsState.UNAVAILABLE)),
    "fresh metrics": lambda seen: replace(seen, metrics=replace(seen.metrics, state=MetricsState.STALE)),
    "what a pod holds": lambda seen: without(seen, 1, anonymous=None),
    "what the pods hold": lambda seen: without(seen, anonymous=None),
    "the history": lambda seen: replace(seen, histories={}),
    "the last week": lambda seen: replace(seen, histories={"worker/default": blank(weeks())}),
    "a part of the past": lambda seen: replace(seen, reading=True),
}
"""What memory is not lowered without."""
OTHERS: dict[str, Callable[[Observation], Observation]] = {
    "the day's largest": lambda seen: without(seen, anonymous_day=None),
    "the CPU": lambda seen: without(seen, cpu=None, throttled=None, node_cpu=None),
    "the tasks": lambda seen: replace(seen, airflow=airflow(problem="It does not answer.")),
    "the busiest of a day": lambda seen: replace(seen, airflow=airflow(tasks(0, 0, busy_day=None))),
    "the broker": lambda seen: replace(seen, broker="It does not answer."),
    "the version": lambda seen: replace(seen, line=None),
    "the room": lambda seen: replace(seen, room=Room()),
}


def test_with_everything_known_both_are_released() -> None:
    last = turn(POLICY, rich())
    assert last.reasons == ["SlotsIdle"], "one at a time"
    assert turn(POLICY, replace(rich(), airflow=airflow(tasks(0, 0, busy_day=16)))).reasons == ["MemoryReleased"]


@given(lost=st.sets(st.sampled_from(sorted(LOSSES)), min_size=1), more=st.sets(st.sampled_from(sorted(OTHERS))))
def test_without_what_a_release_rests_on_no_memory_is_taken_away(lost: set[str], more: set[str]) -> None:
    seen = rich()
    for name in sorted(lost):
        seen = LOSSES[name](seen)
    for name in sorted(more):
        seen = OTHERS[name](seen)
    last = turn(POLICY, seen)
    assert (last.request, last.limit) >= (3000, 4096)


@given(lost=st.sets(st.sampled_from(sorted(LOSSES | OTHERS)), min_size=1))
def test_whatever_is_not_known_never_takes_more_away(lost: set[str]) -> None:
    seen = rich()
    for name in sorted(lost):
        seen = (LOSSES | OTHERS)[name](seen)
    # Memory and slots by themselves, as of both only one step is taken at a time.
    first, last = turn(by_memory(), rich()), turn(by_memory(), seen)
    assert last.limit >= first.limit
    assert last.request >= first.request
    slots_alone = slots_spec(memory_min="256Mi", memory_max="8Gi")
    assert (number(turn(slots_alone, seen)) or 8) >= (number(turn(slots_alone, rich())) or 8)


def memory_alone() -> api.Worker:
    (entry,) = POLICY.workers
    return entry.model_copy(update={"concurrency": None})


@pytest.mark.parametrize("name", ["the tasks", "the busiest of a day"])
def test_slots_do_not_go_down_without_knowing_that_they_stood_idle(name: str) -> None:
    assert (number(turn(POLICY, OTHERS[name](rich()))) or 8) == 8


# More evidence


@given(held=st.integers(50, 6000), more=st.integers(0, 3000), limit=st.integers(300, 8000))
def test_who_holds_more_never_gets_less(held: int, more: int, limit: int) -> None:
    seen = rich(min(256, limit), limit, anonymous=held, anonymous_day=held)
    for fields in ({"anonymous": held + more}, {"anonymous_day": held + more}):
        fuller = rich(min(256, limit), limit, **{"anonymous": held, "anonymous_day": held, **fields})
        first, last = (turn(by_memory(), one) for one in (seen, fuller))
        assert last.limit >= first.limit


def by_memory() -> api.Spec:
    return POLICY.model_copy(update={"workers": [memory_alone()]})


@given(more=st.integers(0, 3000), limit=st.integers(300, 8000), request=st.integers(256, 8000))
def test_who_held_more_at_all_hours_never_gets_less(more: int, limit: int, request: int) -> None:
    seen = rich(min(request, limit), limit)
    larger = weeks(daily={hour: size + more for hour, size in FORESEEN.items()})
    first = turn(by_memory(), seen)
    last = turn(by_memory(), replace(seen, histories={"worker/default": larger}))
    assert last.limit >= first.limit
    assert last.request >= first.request


@given(limit=st.integers(300, 6000), known=st.booleans(), whole=st.booleans())
def test_a_kill_never_leads_to_a_smaller_limit(limit: int, known: bool, whole: bool) -> None:
    seen = rich(min(256, limit), limit)
    if not known:
        seen = replace(seen, histories={})
    (workload,) = seen.workloads
    one = workload.pods[0]
    killed = (
        replace(one, deaths=1, death=Death(1, NOW))
        if whole
        else replace(one, usage=replace(one.usage, **vars_of(usage(kills=1, before=0, peak=limit))))
    )
    after = replace(seen, workloads=(replace(workload, pods=(killed, workload.pods[1])),))
    first, last = turn(by_memory(), seen), turn(by_memory(), after)
    assert last.limit >= first.limit


def vars_of(known: Any) -> dict[str, Any]:  # noqa: ANN401 - a usage
    names = ("process_kills", "process_kills_before", "peak")
    return {name: getattr(known, name) for name in names}


def test_the_answer_to_a_kill_is_no_less_than_what_the_history_asks_for() -> None:
    seen = rich(256, 600)
    (workload,) = seen.workloads
    dead = replace(workload.pods[0], deaths=1, death=Death(1, NOW))
    last = turn(by_memory(), replace(seen, workloads=(replace(workload, pods=(dead, workload.pods[1])),)))
    assert last.reasons == ["OutOfMemory"]
    assert last.limit > 900
    assert f"The history asks for {last.limit} MiB, which is more: that counts." in last.target.why


# Room


@st.composite
def rooms(draw: st.DrawFn) -> Room:
    """Any quota, limit range and nodes; each may be unknown."""
    sizes = st.integers(0, 40_000).map(lambda size: size * MI)
    quotas = st.builds(Quota, st.just("memory"), st.sampled_from([LIMITS, REQUESTS]), sizes, sizes)
    ranges = st.builds(
        Range,
        st.just("sizes"),
        st.sampled_from(["Container", "Pod"]),
        st.none() | sizes,
        st.none() | st.integers(1, 2000).map(lambda size: size * MI),
        st.none() | st.floats(1, 8),
    )
    return Room(
        tuple(draw(st.lists(quotas, max_size=2))),
        tuple(draw(st.lists(ranges, max_size=2))),
        tuple(draw(st.sampled_from([(), (Node("a", draw(sizes), draw(sizes)),)]))),
        draw(st.none() | sizes),
    )


def placed(seen: Observation) -> Observation:
    """All pods are on one node."""
    (workload,) = seen.workloads
    return replace(seen, workloads=(replace(workload, pods=tuple(replace(one, node="a") for one in workload.pods)),))


@given(worlds(), rooms())
def test_room_bounds_what_is_raised_and_lowers_nothing(world: tuple[api.Spec, Observation], has: Room) -> None:
    policy, seen = world[0], placed(world[1])
    free, bound = turn(policy, seen), turn(policy, replace(seen, room=has))
    (workload,) = seen.workloads
    template = workload.template
    assert turn(policy, replace(seen, room=has)).decision == bound.decision
    assert bound.target.desired.memory.limit is None or bound.limit >= (template.limit or 0) // MI
    assert bound.request >= (template.request or 0) // MI
    if free.target.desired.memory.limit is not None:
        # A raise of the request with its limit is what a limit range may ask for; the limit is never more for it.
        assert bound.limit <= max(free.limit, bound.request)
    assert set(bound.reasons) <= {*free.reasons, "MemoryBound", "SlotsIdle", "SlotsExhausted", "BelowMinimum"}


@given(rooms(), rooms(), st.integers(512, 3000))
def test_what_fits_both_fits_each(one: Room, other: Room, limit: int) -> None:
    seen = rich(256, limit)
    (workload,) = seen.workloads
    dead = replace(workload.pods[0], deaths=1, death=Death(1, NOW))
    seen = replace(seen, workloads=(replace(workload, pods=(dead, workload.pods[1])),))
    assume(not (one.nodes and other.nodes))
    both = Room(
        one.quotas + other.quotas,
        one.ranges + other.ranges,
        one.nodes or other.nodes,
        min((size for size in (one.largest, other.largest) if size is not None), default=None),
    )
    # A limit range's least request may be above what another allows: then nothing can be right.
    assume(not any(item.least for item in both.ranges))
    limits = [turn(by_memory(), replace(seen, room=has)).limit for has in (one, other, both)]
    assert limits[2] <= min(limits[:2])

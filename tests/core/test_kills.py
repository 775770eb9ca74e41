"""Both kinds of out-of-memory kills, and which of them still ask for an answer."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_tuner import api, kills
from airflow_tuner.kills import Raise
from airflow_tuner.model import Kill, Kind, Pod
from core.worlds import MI, NOW, pod, usage, worker

SECOND = timedelta(seconds=1)


def unanswered(
    seen: Pod, *answered: api.Answered, raised: Raise | None = None, now: datetime = NOW
) -> tuple[Kill, ...]:
    return kills.unanswered(worker(seen), {entry.uid: entry for entry in answered}, raised, now)


def answer(seen: Pod, *earlier: api.Answered) -> tuple[api.Answered, ...]:
    workload = worker(seen)
    return kills.merged(earlier, kills.evidence(workload), workload)


def raised(ago: float = 10, limit: int | None = 1024) -> Raise:
    return Raise(NOW - timedelta(seconds=ago), None if limit is None else limit * MI)


def test_a_killed_container_is_seen_without_any_metrics() -> None:
    (kill,) = unanswered(pod(died=NOW - SECOND))
    assert (kill.kind, kill.count, kill.limit, kill.of_node) == (Kind.CONTAINER, 1, 1024 * MI, False)


def test_a_killed_process_is_seen_though_the_container_lives_on() -> None:
    (kill,) = unanswered(pod(usage=usage(kills=3, peak=1024)))
    assert (kill.kind, kill.count, kill.limit, kill.of_node) == (Kind.PROCESS, 3, 1024 * MI, False)


def test_a_quiet_pod_asks_for_nothing() -> None:
    assert unanswered(pod(usage=usage(kills=0, peak=1024))) == ()
    assert answer(pod(usage=usage(kills=0))) == ()


def test_a_container_that_died_more_than_a_day_ago_is_history() -> None:
    assert unanswered(pod(died=NOW - timedelta(hours=24, seconds=1))) == ()


def test_kills_of_more_than_an_hour_before_the_pod_was_first_seen_are_history() -> None:
    assert unanswered(pod(usage=usage(kills=5, before=5))) == ()
    (kill,) = unanswered(pod(usage=usage(kills=7, before=5)))
    assert kill.count == 2


def test_what_was_answered_is_not_answered_again() -> None:
    seen = pod(died=NOW - SECOND, usage=usage(kills=2, peak=1024))
    assert len(unanswered(seen)) == 2
    assert unanswered(seen, *answer(seen)) == ()


def test_the_next_death_of_the_same_container_is_new() -> None:
    before = answer(pod(died=NOW - 60 * SECOND))
    assert unanswered(pod(died=NOW - SECOND, deaths=2), *before)


def test_a_new_container_counts_from_zero() -> None:
    before = answer(pod(usage=usage(kills=7)))
    (kill,) = unanswered(pod(container_id="c-next", usage=usage(kills=1, peak=1024)), *before)
    assert kill.count == 1


def test_a_container_that_has_not_started_has_no_series_of_its_own() -> None:
    assert unanswered(pod(container_id="", usage=usage(kills=7, peak=1024))) == ()
    assert answer(pod(container_id="", usage=usage(kills=7, peak=1024))) == ()


def test_a_kill_without_a_limit_is_the_nodes_shortage() -> None:
    found = unanswered(pod(limit=None, died=NOW - SECOND, usage=usage(kills=1)))
    assert [kill.of_node for kill in found] == [True, True]


def test_a_kill_well_below_the_limit_is_the_nodes_shortage() -> None:
    (kill,) = unanswered(pod(usage=usage(kills=1, peak=600)))
    assert kill.of_node


def test_a_kill_counts_against_the_limit_in_force_and_not_the_one_asked_for() -> None:
    seen = pod(limit=2048, running=pod(limit=1024).memory, died=NOW - SECOND)
    assert [kill.limit for kill in unanswered(seen)] == [1024 * MI]
    down = pod(limit=2048, running=None, died=NOW - SECOND)
    assert [kill.limit for kill in unanswered(down)] == [2048 * MI]


def test_a_death_from_before_the_last_raise_was_answered_by_it() -> None:
    assert unanswered(pod(died=NOW - 20 * SECOND), raised=raised(ago=10)) == ()
    assert unanswered(pod(died=NOW - 5 * SECOND), raised=raised(ago=10))


@pytest.mark.parametrize("peak", [None, 1000, 1024, 1400])
def test_a_count_delayed_by_cadvisor_is_from_before_the_raise(peak: float | None) -> None:
    late = pod(limit=1536, usage=usage(kills=2, peak=peak))
    assert unanswered(late, raised=raised(ago=40)) == ()


def test_a_peak_at_the_raised_limit_proves_a_new_kill_at_once() -> None:
    (kill,) = unanswered(pod(limit=1536, usage=usage(kills=2, peak=1536)), raised=raised(ago=1))
    assert not kill.of_node
    assert kill.limit == 1536 * MI


def test_without_a_peak_a_kill_counts_once_no_delay_can_explain_it() -> None:
    assert unanswered(pod(limit=1536, usage=usage(kills=2)), raised=raised(ago=80))


def test_a_pod_born_after_the_raise_was_never_under_the_old_limit() -> None:
    young = pod(limit=1536, created=NOW - 5 * SECOND, usage=usage(kills=1))
    (kill,) = unanswered(young, raised=raised(ago=10))
    assert kill.limit == 1536 * MI


def test_long_after_a_raise_a_kill_below_the_new_limit_is_the_nodes_shortage() -> None:
    (kill,) = unanswered(pod(limit=1536, usage=usage(kills=2, peak=1024)), raised=raised(ago=3600))
    assert kill.of_node


def test_a_raise_from_no_limit_hides_no_kill_that_a_peak_proves() -> None:
    assert unanswered(pod(limit=1536, usage=usage(kills=1, peak=1536)), raised=raised(limit=None))
    assert unanswered(pod(limit=1536, usage=usage(kills=1)), raised=raised(limit=None)) == ()


def test_a_container_that_reached_a_limit_it_had_is_not_well_below_it() -> None:
    assert kills.well_below(pod(limit=None), None)
    assert kills.well_below(pod(limit=1536, usage=usage(peak=1024)), None)
    assert not kills.well_below(pod(limit=1536, usage=usage(peak=1024)), raised())
    assert not kills.well_below(pod(limit=1536), None)


def test_an_answered_count_is_kept_while_metrics_are_missing() -> None:
    # The container had died once before; only that death can be read without metrics.
    full = pod(died=NOW - timedelta(hours=2), usage=usage(kills=3, peak=1024))
    blind = pod(died=NOW - timedelta(hours=2))
    known = answer(blind, *answer(full))
    assert unanswered(full, *known) == ()


def test_an_answered_death_is_kept_when_the_last_death_had_another_cause() -> None:
    known = answer(pod(died=NOW - SECOND, deaths=4))
    known = answer(pod(usage=usage(kills=1)), *known)
    assert [(entry.deaths, entry.process_kills) for entry in known] == [(4, 1)]


def test_a_slower_replica_of_the_metrics_source_brings_nothing_back() -> None:
    known = answer(pod(usage=usage(kills=4, peak=1024)))
    known = answer(pod(usage=usage(kills=3, peak=1024)), *known)
    assert unanswered(pod(usage=usage(kills=4, peak=1024)), *known) == ()


def test_pods_that_are_gone_are_forgotten() -> None:
    known = answer(pod("old", died=NOW))
    assert [entry.pod for entry in answer(pod("new", died=NOW), *known)] == ["new"]


def test_recent_kills_are_those_of_the_last_hour() -> None:
    assert kills.recent_process_kills(usage()) == 0
    assert kills.recent_process_kills(usage(kills=5)) == 5
    assert kills.recent_process_kills(usage(kills=5, before=3)) == 2
    assert kills.recent_process_kills(usage(kills=1, before=3)) == 0


@given(
    st.lists(
        st.tuples(
            st.booleans(),  # do the metrics answer
            st.integers(0, 3),  # new kills of processes
            st.integers(0, 2),  # new deaths for memory
            st.booleans(),  # does the container start anew for another reason
        ),
        max_size=12,
    )
)
def test_every_kill_is_handed_out_once(story: list[tuple[bool, int, int, bool]]) -> None:
    known: tuple[api.Answered, ...] = ()
    containers, processes, deaths, handed, happened = 0, 0, 0, 0, 0
    for fresh, killed, died, restarted in story:
        processes += killed
        if died or restarted:
            # What died with its container before anyone looked cannot be seen.
            containers, processes = containers + 1, 0
        deaths += died
        now = NOW + timedelta(minutes=containers)
        seen = pod(
            died=now if deaths else None,
            deaths=deaths,
            container_id=f"c{containers}",
            usage=usage(kills=processes, peak=1024) if fresh else usage(),
        )
        found = unanswered(seen, *known, now=now)
        happened += killed + died
        handed += sum(kill.count for kill in found)
        known = answer(seen, *known)
        assert unanswered(seen, *known, now=now) == ()
    assert handed <= happened

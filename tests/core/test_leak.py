"""What of a container's memory is leaked, and how long that is known."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from airflow_tuner import leak
from airflow_tuner.history import History, hour_of, of_leak
from airflow_tuner.learning import learned
from airflow_tuner.model import Observation, Pod, Sample
from core.worlds import MI, NOW, observed, pod, spec, turn, usage, worker

HOUR = timedelta(hours=1)
POLICY = spec()
PRIOR = turn(POLICY, observed(worker(pod()))).status


def grows(pace: float | None, *, days: float = 5, at: datetime = NOW) -> Pod:
    """A pod that is seen to leak so many MiB/h since so many days; `None`: it is not seen."""
    told: dict[str, Any] = {} if pace is None else {"growth_by_day": Sample(pace * MI / 3600, at)}
    return pod(started=NOW - timedelta(days=days), usage=replace(usage(anonymous=1500), **told))


def lived(*paces: float | None, days: float = 5) -> Observation:
    """An hour after the other, with such a leak in each."""
    seen = observed(worker(grows(None, days=days)), at=NOW)
    for number, pace in enumerate(paces):
        at = NOW + number * HOUR
        shown = observed(worker(grows(pace, days=days, at=at)), at=at, histories=seen.histories)
        seen = learned(POLICY, PRIOR, shown)
    return seen


def left(seen: Observation) -> float:
    """MiB that the pod holds without its leak."""
    (one,) = seen.workloads[0].pods
    return round((leak.without(one.usage.anonymous, one, seen.at) or 0) / MI)


def test_what_leaked_is_taken_off_what_is_held() -> None:
    assert left(lived(6)) == 1500 - 6 * 5 * 24
    assert left(lived(None)) == 1500
    assert left(lived(1.9)) == 1500, "less than 2 MiB/h may be noise"


def test_a_leak_that_was_seen_for_half_a_day_is_remembered_for_three() -> None:
    seen = [6.0] * 12
    assert left(lived(*seen, None)) == 1500 - 6 * (5 * 24 + 12)
    assert left(lived(*seen[1:], None)) == 1500, "too short"
    assert left(lived(*seen, *[None] * 61)) == 1500 - 6 * (5 * 24 + 72)
    assert left(lived(*seen, *[None] * 62)) == 1500


def test_the_least_pace_that_was_seen_is_the_one_that_is_remembered() -> None:
    assert left(lived(*[9.0] * 6, *[5.0] * 6, None)) == 1500 - 5 * (5 * 24 + 12)


def test_a_container_that_began_since_is_not_taken_to_leak() -> None:
    assert left(lived(*[6.0] * 12, None, days=-11 / 24)) == 1500
    assert left(lived(*[6.0] * 12, None, days=-10 / 24)) < 1500


def test_another_workload_of_that_name_has_no_such_past() -> None:
    seen = lived(*[6.0] * 12)
    assert of_leak("worker/default") in seen.histories
    other = replace(seen.workloads[0], name="another")
    assert of_leak("worker/default") not in learned(POLICY, PRIOR, replace(seen, workloads=(other,))).histories


def test_nothing_is_noted_where_nothing_leaks() -> None:
    assert of_leak("worker/default") not in lived(None, 1.0).histories
    history = leak.noted(worker(grows(6)), History(), NOW)
    assert history == History(hour_of(NOW), (6 * 1024,))


def test_what_rose_for_a_day_and_a_half_is_not_much_however_old_the_container_is() -> None:
    leaking = grows(6)
    assert leak.much(leaking, NOW)
    lately = replace(leaking.usage, growth_by_day=None, growth_days=leaking.usage.growth_by_day)
    assert not leak.much(replace(leaking, usage=lately), NOW)

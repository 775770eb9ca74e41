"""How tasks flow, as far as queues and workers tell it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from airflow_tuner.model import Slots
from airflow_tuner.tally import Tally

BEGIN = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
WORKER = Slots(4, 4, 4, autoscaled=True, queues=("default",), oldest=0.0, begun=0)


def seconds(number: float) -> datetime:
    """So long after the beginning."""
    return BEGIN + timedelta(seconds=number)


def test_nothing_is_known_before_the_first_look() -> None:
    assert Tally().tasks({}) is None


def test_waiting_and_running_are_as_they_are_now_and_the_least_of_two_minutes_is_known() -> None:
    tally = Tally()
    tally.add(BEGIN, {"default": 0}, {"a": replace(WORKER, busy=0)})
    tally.add(seconds(15), {"default": 20, "heavy": 5}, {"a": WORKER})
    tasks = tally.tasks({"default": 20, "heavy": 5})
    assert tasks is not None
    assert (tasks.waiting_in(None), tasks.waiting_in(["heavy"]), tasks.running_in(None)) == (25, 5, 4)
    assert tasks.waiting_least == 0, "they are just coming"
    tally.add(seconds(130), {"default": 30}, {"a": WORKER})
    later = tally.tasks({"default": 30})
    assert later is not None
    assert later.waiting_least == 25


def test_a_tasks_duration_follows_from_what_is_busy_and_what_begins() -> None:
    tally = Tally()
    for number in range(5):
        tally.add(seconds(15 * number), {"default": 9}, {"a": replace(WORKER, begun=6 * number)})
    tasks = tally.tasks({"default": 9})
    assert tasks is not None
    assert tasks.duration == 10.0, "four slots busy for a minute, and 24 tasks began"
    assert tasks.started == 0.4


def test_a_duration_is_not_told_of_few_tasks_nor_of_a_worker_that_began_anew() -> None:
    tally = Tally()
    tally.add(BEGIN, {}, {"a": replace(WORKER, begun=100)})
    tally.add(seconds(15), {}, {"a": replace(WORKER, begun=104)})
    few = tally.tasks({})
    assert few is not None
    assert few.duration is None
    tally.add(seconds(30), {}, {"a": replace(WORKER, begun=3)})
    anew = tally.tasks({})
    assert anew is not None
    assert anew.duration is None


def test_the_busiest_moment_of_a_day_is_known_after_a_day() -> None:
    tally = Tally()
    first = int(BEGIN.timestamp()) // 60
    for minute in range(1440):
        tally.keep(first - 1440 + minute, 7 if minute == 100 else 2)
    tally.add(BEGIN, {}, {"a": WORKER})
    tasks = tally.tasks({})
    assert tasks is not None
    assert tasks.busy_day == 7
    young = Tally()
    assert young.add(BEGIN, {}, {"a": WORKER}) is None
    assert young.add(seconds(60), {}, {"a": WORKER}) == (first, 4), "the minute that is over"
    told = young.tasks({})
    assert told is not None
    assert told.busy_day is None

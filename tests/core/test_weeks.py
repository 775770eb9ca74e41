"""The model of weeks agrees with the fine model over an hour, and keeps to what kernels, brokers and kubelets do."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from airflow_tuner.fleet import Deployment, Job, Laws
from airflow_tuner.fleet.loads import OFFICE, Arrivals, Burst, Load, On
from airflow_tuner.fleet.scenarios import MONDAY, SCENARIOS, Scenario, Span
from airflow_tuner.fleet.weeks import Weeks

MEBIBYTE = 2**20
LAWS = Laws.measured("3")
BUSY = Load("busy", 60, 60, daily=30000, memory_spread=0.5, cpu=0.0, reads=0)
LATE = Load("late", 90, 40, bursts=(Burst(80, hour=0.5),), cpu=0.0, reads=0)


def story(*loads: Load, **fields: Any) -> Scenario:  # noqa: ANN401 - any field of the scenario
    """A short story with few workers."""
    return Scenario("test", "A test.", loads, **{"workers": 4, "slots": 8, **fields})


def passed(weeks: Weeks, minutes: int) -> Weeks:
    for _ in range(minutes):
        weeks.step()
    return weeks


def held(weeks: Weeks) -> list[float]:
    return [worker.anonymous for worker in weeks.workers]


def fine(made: Scenario, seed: int, minutes: int) -> tuple[list[float], list[int], list[float]]:
    """The same tasks in the fine model: memory of the fullest worker, busy slots, by minute; and waits."""
    fleet = Deployment(seed, laws=LAWS, parallelism=1000, pools={"default_pool": 1000})
    fleet.start("scheduler", "scheduler", {}, None)
    names = [f"worker-{number}" for number in range(made.workers)]
    for name in names:
        fleet.start(name, "worker", {"AIRFLOW__CELERY__WORKER_CONCURRENCY": f"{made.slots}"}, None)
    fleet.advance(60)
    begun, arrivals, runs = fleet.now, Arrivals(made.loads, seed, made.begin), []
    peaks: list[float] = []
    busy: list[int] = []
    for minute in range(minutes):
        for arrival in arrivals.of(minute):
            fleet.advance(max(0.0, begun + arrival.at - fleet.now))
            runs.append(fleet.run(Job(arrival.load.dag, 1, arrival.seconds, arrival.mebibytes)))
        fleet.advance(begun + 60.0 * (minute + 1) - fleet.now)
        peaks.append(max(fleet.reading(name).peak - fleet.reading(name).cache for name in names) / MEBIBYTE)
        busy.append(fleet.running)
    tasks = [task for run in runs for task in fleet.find(run).tasks]
    return peaks, busy, [task.started_at - task.scheduled_at for task in tasks if task.tries]


def mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


@pytest.mark.parametrize("seed", [1, 2])
def test_an_hour_is_as_in_the_fine_model(seed: int) -> None:
    made = story(BUSY, LATE)
    weeks = Weeks(made, seed, laws=LAWS)
    busy, waits, peak = [], [], 0.0
    for _ in range(60):
        weeks.step()
        busy.append(weeks.running)
        waits.append(weeks.wait)
        peak = max(peak, *(weeks.in_use(worker) for worker in weeks.workers))
    peaks, told, waited = fine(made, seed, 60)
    assert mean(busy) == pytest.approx(mean(told), rel=0.02)
    assert peak == pytest.approx(peaks[-1], rel=0.1)
    assert max(waits) == pytest.approx(max(waited), rel=0.35)
    assert weeks.tally.late / weeks.tally.tasks == pytest.approx(mean(float(wait > 60) for wait in waited), abs=0.03)


GREEDY = Load("greedy", 60, 60, daily=30000, memory_spread=0.9, cpu=0.0, reads=0)
BACKOFF = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)


def killed(made: Scenario, seed: int, limit: int, *, whole: bool) -> int:
    """Kills of an hour in the fine model, where a kubelet starts containers again."""
    fleet = Deployment(seed, laws=LAWS, parallelism=1000, pools={"default_pool": 1000}, group_kills=whole)
    fleet.start("scheduler", "scheduler", {}, None)
    environment = {"AIRFLOW__CELERY__WORKER_CONCURRENCY": f"{made.slots}"}
    deaths = {f"worker-{number}": (-math.inf, 0) for number in range(made.workers)}
    due: dict[str, float] = {}
    for name in deaths:
        fleet.start(name, "worker", environment, limit * MEBIBYTE)
    fleet.advance(60)
    begun, arrivals, kills = fleet.now, Arrivals(made.loads, seed, made.begin), 0
    for arrival in (one for minute in range(60) for one in arrivals.of(minute)):
        kills += len(fleet.advance(max(0.0, begun + arrival.at - fleet.now)))
        fleet.run(Job(arrival.load.dag, 1, arrival.seconds, arrival.mebibytes, retry_delay=300, retries=3))
        for name in [name for name in deaths if not fleet.alive(name)]:
            if name not in due:
                last, in_a_row = deaths[name]
                deaths[name] = (fleet.now, in_a_row + 1 if fleet.now - last < 600 else 0)
                due[name] = fleet.now + BACKOFF[min(deaths[name][1], len(BACKOFF) - 1)]
            if fleet.now >= due[name]:
                del due[name]
                fleet.start(name, "worker", environment, limit * MEBIBYTE)
    return kills


@pytest.mark.parametrize(("whole", "limit"), [(True, 1700), (True, 2300), (False, 2300)])
def test_the_kernel_kills_as_often_as_in_the_fine_model(whole: bool, limit: int) -> None:
    made, found, told = story(GREEDY), 0, 0
    for seed in (1, 2, 3):
        tally = passed(Weeks(made, seed, limit, limit, laws=LAWS, whole=whole), 60).tally
        found += tally.container_kills if whole else tally.process_kills
        told += killed(made, seed, limit, whole=whole)
    assert found == pytest.approx(told, rel=0.2)


def test_the_same_orders_give_the_same_weeks() -> None:
    def told() -> tuple[object, ...]:
        weeks = passed(Weeks(SCENARIOS["steady"], 3, 1500, 1500), 720)
        return weeks.tally, weeks.queue and weeks.queue[0].scheduled_at, held(weeks)

    assert told() == told()


def test_a_slot_that_has_been_used_keeps_memory() -> None:
    once = Load("once", 60, 100, bursts=(Burst(32, hour=0.0),), memory_spread=0.0, seconds_spread=0.0)
    weeks = passed(Weeks(story(once), 1, laws=LAWS), 1)
    cold, busy, warm = (255 + 8 * one for one in (21.3, 85.8 + 100, 62.1))
    assert held(weeks) == [pytest.approx(busy)] * 4
    assert held(passed(weeks, 3)) == [pytest.approx(warm)] * 4
    assert held(passed(Weeks(story(), 1, laws=LAWS), 1)) == [pytest.approx(cold)] * 4


def test_slots_that_are_added_take_more_and_surplus_ones_go_as_they_are_idle() -> None:
    weeks = passed(Weeks(story(), 1, laws=LAWS), 1)
    first = weeks.workers[0]
    weeks.set_slots(first, 10)
    assert first.held == pytest.approx(255 + 10 * 21.3 + 2 * 50)
    weeks.set_slots(first, 4)
    assert first.held == pytest.approx(255 + 4 * 21.3)
    assert (first.free, weeks.free) == (4, 28)


HUNGRY = Load("hungry", 120, 900, bursts=(Burst(4, hour=0.25),), memory_spread=0.0)


def test_a_container_that_holds_too_much_dies_with_all_its_tasks_which_come_again() -> None:
    made = story(replace(HUNGRY, bursts=(Burst(2, hour=0.25),)), workers=1)
    weeks = passed(Weeks(made, 1, 1500, 1500, laws=LAWS), 16)
    worker, tally = weeks.workers[0], weeks.tally
    assert (tally.container_kills, worker.deaths, worker.life, worker.up) == (1, 1, 2, True)
    assert (tally.failed_tries, tally.started, weeks.running) == (2, 2, 0)
    weeks.resize(worker, 16000, 16000)
    passed(weeks, 9)
    assert tally.started == 2
    passed(weeks, 20)
    assert (tally.container_kills, tally.ended, tally.failed_tasks) == (1, 2, 0)


def test_a_process_is_killed_alone_where_the_kernel_kills_so() -> None:
    weeks = passed(Weeks(story(HUNGRY, workers=1), 1, 1500, 1500, laws=LAWS, whole=False), 16)
    assert (weeks.tally.container_kills, weeks.workers[0].up) == (0, True)
    assert weeks.workers[0].process_kills == weeks.tally.process_kills > 0
    assert weeks.workers[0].anonymous <= 1500


def test_the_probe_needs_room_too() -> None:
    limit = 255 + 8 * 21.3 + 100
    assert passed(Weeks(story(), 1, limit, limit, laws=LAWS), 1).tally.container_kills == 4
    assert passed(Weeks(story(), 1, limit + 40, limit, laws=LAWS), 5).tally.container_kills == 0


def test_a_leak_grows_until_the_container_is_new() -> None:
    weeks = passed(Weeks(story(leak=30.0), 1, laws=LAWS), 120)
    assert weeks.workers[0].leaked == pytest.approx(60)
    weeks.restart(weeks.workers[0], 1000, 1000)
    passed(weeks, 5)
    assert weeks.workers[0].leaked < 5
    assert weeks.workers[0].limit == 1000
    assert weeks.tally.restarts == 1


def test_a_limit_below_what_is_in_use_waits_until_it_fits() -> None:
    weeks = passed(Weeks(story(replace(HUNGRY, bursts=(Burst(4, hour=0.0),)), workers=1), 1, 8000, 8000, laws=LAWS), 1)
    worker = weeks.workers[0]
    weeks.resize(worker, 2000, 500)
    assert (worker.limit, worker.wanted, worker.request) == (8000, 2000, 500)
    passed(weeks, 4)
    assert (worker.limit, worker.wanted) == (2000, None)
    assert weeks.tally.container_kills == 0


def test_page_cache_fills_what_isfree_and_gives_way() -> None:
    reads = Load("reads", 30, 10, daily=20000, reads=200)
    weeks = passed(Weeks(story(reads, workers=1), 1, 3000, 3000, laws=LAWS), 60)
    worker = weeks.workers[0]
    assert worker.anonymous + worker.cache == pytest.approx(3000)
    assert worker.peak == pytest.approx(3000)
    assert weeks.tally.container_kills == 0


def test_workers_come_and_go_and_a_drain_that_takes_too_long_loses_tasks() -> None:
    long = Load("long", 3000, 10, bursts=(Burst(32, hour=0.0),), seconds_spread=0.0)
    weeks = passed(Weeks(story(long), 1, laws=LAWS), 1)
    weeks.scale(2)
    assert len(weeks.living) == 2
    assert weeks.tally.failed_tries == 0
    passed(weeks, 11)
    assert weeks.tally.failed_tries == weeks.tally.drained_tries == 16
    assert not weeks.workers[3].up
    weeks.scale(5)
    passed(weeks, 3)
    assert [worker.up for worker in weeks.workers] == [True] * 5
    assert weeks.free == sum(worker.free for worker in weeks.workers)


def test_a_slow_database_hands_tasks_out_slowly() -> None:
    many = Load("many", 5, 10, bursts=(Burst(200, hour=0.5),))
    usual = passed(Weeks(story(many), 1), 31)
    slow = passed(Weeks(story(many, database=(Span(0.0, 1.0, 600.0),)), 1), 31)
    assert (usual.scheduled, usual.tally.started) == (0, 200)
    assert slow.scheduled > 50


def test_the_days_of_bursts_are_those_of_the_calendar() -> None:
    monthly = Load("monthly", 5, 10, bursts=(Burst(3, hour=5.0, on=On.MONTH_ENDS), Burst(2, hour=1.5, on=On.MONDAYS)))
    arrivals = Arrivals((monthly,), 1, MONDAY)
    found = {minute: len(arrivals.of(minute)) for minute in range(31 * 1440)}
    mondays = {day * 1440 + 90: 2 for day in (0, 7, 14, 21, 28)}
    assert {minute: count for minute, count in found.items() if count} == mondays | {29 * 1440 + 300: 3}


def test_as_many_tasks_come_as_are_told() -> None:
    arrivals = Arrivals((Load("a", 5, 10, daily=3000, hours=OFFICE), Load("b", 5, 10, daily=90000)), 1, MONDAY)
    found = [one.load.dag for minute in range(1440) for one in arrivals.of(minute)]
    assert found.count("a") == pytest.approx(3000, rel=0.06)
    assert found.count("b") == pytest.approx(90000, rel=0.02)


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_story_can_be_played(name: str) -> None:
    made = SCENARIOS[name]
    assert name == made.name
    assert made.told.endswith(".")
    weeks = passed(Weeks(made, 1, 6000, 3000), 180)
    assert weeks.tally.started > 0
    assert weeks.free == sum(worker.free for worker in weeks.workers)
    assert weeks.running == sum(worker.busy for worker in weeks.workers)
    for worker in weeks.workers:
        tasks = sum(task.mebibytes for task in worker.tasks)
        laws = weeks.laws
        slots = worker.cold * laws.cold_slot + worker.warm * laws.warm_slot + worker.busy * laws.busy_slot
        if worker.up:
            assert worker.held == pytest.approx(laws.worker_base + slots + tasks)

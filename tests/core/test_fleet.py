"""The fleet model keeps to what was measured on real Airflow, and to what kernels and brokers do."""

from dataclasses import replace
from typing import Any

import pytest

from airflow_tuner.fleet import Deployment, Kill, Laws

MEBIBYTE = 2**20
AUTOSCALE = "AIRFLOW__CELERY__WORKER_AUTOSCALE"
CONCURRENCY = "AIRFLOW__CELERY__WORKER_CONCURRENCY"
QUIET: dict[str, Any] = {"probe_seconds": 0.001, "probe": 0.0, "cache_growth": 0.0}
"""No probes that would hide what a test looks at."""


def measured(line: str = "3", **laws: Any) -> Laws:  # noqa: ANN401 - any law
    """The laws as measured, but for those given."""
    return replace(Laws.measured(line), **laws)


def deployed(  # noqa: PLR0913 - what tests differ in
    slots: int = 4,
    limit: int | None = None,
    *,
    laws: Laws | None = None,
    group_kills: bool = False,
    parallelism: int = 32,
    pools: dict[str, int] | None = None,
    workers: int = 1,
    cores: float | None = None,
) -> Deployment:
    """A scheduler and workers that are ready."""
    laws = laws or measured(**QUIET)
    fleet = Deployment(1, laws=laws, group_kills=group_kills, parallelism=parallelism, pools=pools)
    fleet.start("scheduler", "scheduler", {}, None)
    for number in range(workers):
        bytes_ = None if limit is None else limit * MEBIBYTE
        fleet.start(f"worker-{number}", "worker", {AUTOSCALE: f"{slots},{slots}"}, bytes_, cores)
    fleet.advance(90)
    return fleet


def anonymous(fleet: Deployment, name: str = "worker-0") -> float:
    return fleet.reading(name).rss / MEBIBYTE


# Memory.


@pytest.mark.parametrize(
    ("line", "slots", "cold", "busy", "warm"),
    [("3", 4, 350, 602, 507), ("3", 16, 605, 1622, 1242), ("2", 4, 345, 681, 393), ("2", 8, 427, 1098, 524)],
)
def test_a_workers_memory_is_what_was_measured(line: str, slots: int, cold: float, busy: float, warm: float) -> None:
    fleet = Deployment(1, line=line, laws=measured(line, **QUIET))
    fleet.start("scheduler", "scheduler", {}, None)
    fleet.start("worker-0", "worker", {CONCURRENCY: str(slots)}, None)
    fleet.advance(60)
    assert anonymous(fleet) == pytest.approx(cold, rel=0.06)
    fleet.trigger("sleep", slots, 60)
    fleet.advance(30)
    assert anonymous(fleet) == pytest.approx(busy, rel=0.06)
    fleet.advance(90)
    assert anonymous(fleet) == pytest.approx(warm, rel=0.06)


@pytest.mark.parametrize("line", ["2", "3"])
def test_drawn_laws_lie_around_the_measured_ones_and_differ_by_seed(line: str) -> None:
    drawn = [Laws.drawn(seed, line) for seed in range(50)]
    for laws in drawn:
        assert laws.worker_base == pytest.approx(Laws.measured(line).worker_base, rel=0.15)
        assert laws.cold_slot < laws.warm_slot < laws.busy_slot
        assert 300 <= laws.stranded_first < laws.stranded_last <= 600
    assert len({laws.busy_slot for laws in drawn}) == 50


def test_a_slot_added_while_the_worker_runs_takes_more_than_one_from_birth() -> None:
    fleet, born = deployed(2), deployed(10)
    assert fleet.set_slots("worker-0", 10)
    assert fleet.slots("worker-0") == (10, 0)
    assert anonymous(fleet) - anonymous(born) == pytest.approx(8 * 50)


def test_a_worker_without_autoscale_refuses_to_change_its_slots() -> None:
    fleet = Deployment(1)
    fleet.start("worker-0", "worker", {CONCURRENCY: "3"}, None)
    fleet.advance(60)
    assert not fleet.set_slots("worker-0", 5)
    assert fleet.slots("worker-0") == (3, 0)


def test_slots_fall_only_as_tasks_end_and_take_no_new_ones_meanwhile() -> None:
    fleet = deployed(4)
    fleet.trigger("sleep", 4, 30)
    fleet.advance(10)
    fleet.trigger("sleep", 4, 30)
    assert fleet.set_slots("worker-0", 1)
    assert fleet.running == 4
    fleet.advance(40)
    assert fleet.running == 1


def test_each_minute_a_probe_takes_memory_for_some_seconds() -> None:
    fleet = deployed(laws=measured())
    seen = []
    for _ in range(120):
        fleet.advance(1)
        seen.append(anonymous(fleet))
    high = sum(value > min(seen) + 100 for value in seen)
    assert max(seen) == pytest.approx(min(seen) + 130)
    assert 12 <= high <= 24


def test_page_cache_fills_the_limit_and_kills_nothing() -> None:
    fleet = deployed(limit=700)
    fleet.trigger("read", 4, 60, reads=2000)
    assert fleet.advance(30) == ()
    seen = fleet.reading("worker-0")
    assert seen.usage == 700 * MEBIBYTE == seen.peak
    assert seen.rss < seen.working_set < seen.usage


def test_a_leak_kills_the_container_when_its_limit_is_full() -> None:
    fleet = deployed(limit=440)
    before = anonymous(fleet)
    fleet.leak("worker", 100)
    assert fleet.advance(1800) == ()
    assert anonymous(fleet) - before == pytest.approx(50, abs=0.1)
    (kill,) = fleet.advance(1800)
    assert kill.whole
    assert kill.at == pytest.approx(90 + (440 - before) / 100 * 3600, abs=1)


# Kills.


def test_a_task_that_does_not_fit_dies_alone_and_its_retry_succeeds_after_a_resize() -> None:
    fleet = deployed(2, limit=700)
    run = fleet.trigger("eat", 1, 10, 500, retries=1, retry_delay=30)
    (kill,) = fleet.advance(20)
    assert kill == Kill("worker-0", whole=False, at=kill.at)
    assert fleet.states(run) == {"up_for_retry": 1}
    seen = fleet.reading("worker-0")
    assert (seen.process_kills, seen.peak) == (1, 700 * MEBIBYTE)
    fleet.resize("worker-0", 1200 * MEBIBYTE)
    assert fleet.advance(60) == ()
    assert fleet.states(run) == {"success": 1}
    assert fleet.find(run).tasks[0].tries == 2


def test_a_task_that_never_fits_fails_once_its_retries_are_used_up() -> None:
    fleet = deployed(2, limit=700)
    run = fleet.trigger("eat", 1, 10, 500, retries=3, retry_delay=5)
    assert len(fleet.advance(120)) == 4
    assert fleet.states(run) == {"failed": 1}


def test_the_biggest_task_dies_and_not_its_neighbours() -> None:
    fleet = deployed(3, limit=900)
    small = fleet.trigger("small", 2, 60, 20)
    fleet.advance(10)
    fleet.trigger("big", 1, 60, 500)
    assert [kill.whole for kill in fleet.advance(10)] == [False]
    assert fleet.states(small) == {"running": 2}


def test_where_the_kernel_kills_groups_the_container_dies_with_all_its_tasks() -> None:
    fleet = deployed(2, limit=700, group_kills=True)
    fleet.trigger("eat", 1, 10, 500)
    (kill,) = fleet.advance(20)
    assert kill.whole
    assert not fleet.alive("worker-0")
    assert fleet.reading("worker-0").rss == 0
    assert fleet.reading("worker-0").peak == 700 * MEBIBYTE


def test_slots_that_do_not_fit_kill_the_main_process_also_where_groups_are_not_killed() -> None:
    fleet = deployed(16, limit=900)
    fleet.trigger("small", 20, 30)
    assert fleet.advance(60)[-1].whole


def test_one_limit_that_does_not_fit_the_slots_stops_all_of_airflow_for_minutes() -> None:
    # Seen on the official chart: 16 slots under 900 MiB, twenty short tasks a minute, a kubelet that starts again.
    fleet = deployed(16, limit=900)
    idle = 0
    for minute in range(10):
        fleet.trigger("small", 20, 5)
        for _ in range(60):
            fleet.advance(1)
            if not fleet.alive("worker-0"):
                fleet.start("worker-0", "worker", {AUTOSCALE: "16,16"}, (900 if minute < 2 else 3000) * MEBIBYTE)
            idle += fleet.ready("worker-0") and not fleet.running and fleet.handed_out == 32
    assert idle > 240


def test_lowering_the_limit_below_what_is_held_kills_at_once() -> None:
    fleet = deployed(4, limit=700)
    fleet.resize("worker-0", 200 * MEBIBYTE)
    assert not fleet.alive("worker-0")
    assert [kill.whole for kill in fleet.advance(0)] == [True]


def killed() -> tuple[Deployment, str]:
    """A worker has died over 32 messages, and runs again with room enough."""
    fleet = deployed(16, limit=3000)
    run = fleet.trigger("small", 60, 30)
    fleet.advance(10)
    fleet.resize("worker-0", 900 * MEBIBYTE)
    assert not fleet.alive("worker-0")
    fleet.start("worker-0", "worker", {AUTOSCALE: "16,16"}, 3000 * MEBIBYTE)
    fleet.advance(60)
    return fleet, run


def test_stranded_tasks_hold_all_of_parallelism_until_they_come_back_after_five_to_ten_minutes() -> None:
    fleet, run = killed()
    assert (fleet.handed_out, fleet.stranded, fleet.running) == (32, 32, 0)
    fleet.advance(200)
    assert (fleet.handed_out, fleet.stranded, fleet.running) == (32, 32, 0)
    fleet.advance(100)
    assert 0 < fleet.stranded < 32
    fleet.advance(300)
    assert fleet.stranded == 0
    fleet.advance(200)
    assert fleet.states(run) == {"success": 60}


def test_stranded_tasks_that_are_given_back_run_at_once_and_lose_no_try() -> None:
    fleet, run = killed()
    assert fleet.redeliver() == 32
    fleet.advance(180)
    assert fleet.states(run) == {"success": 60}
    assert {task.tries for task in fleet.find(run).tasks} == {1}


def test_a_warm_shutdown_loses_nothing() -> None:
    fleet = deployed(4, workers=2)
    run = fleet.trigger("sleep", 24, 30)
    fleet.advance(10)
    fleet.stop("worker-0")
    assert not fleet.idle("worker-0")
    while not fleet.idle("worker-0"):
        fleet.advance(1)
    fleet.end("worker-0")
    assert fleet.stranded == 0
    fleet.advance(200)
    assert fleet.states(run) == {"success": 24}
    assert {task.tries for task in fleet.find(run).tasks} == {1}


def test_a_shutdown_that_is_cut_short_strands_what_ran() -> None:
    fleet = deployed(4)
    fleet.trigger("sleep", 4, 300)
    fleet.advance(10)
    fleet.stop("worker-0")
    fleet.advance(30)
    fleet.end("worker-0")
    assert fleet.stranded == 4


# What holds tasks back.


def test_the_queue_keeps_to_littles_law() -> None:
    fleet = deployed(8, laws=measured(overhead=1.0, **QUIET))
    busy = []
    for _ in range(300):
        fleet.trigger("steady", 1, 11)
        fleet.advance(2)
        busy.append(fleet.running)
    assert sum(busy[100:]) / 200 == pytest.approx((11 + 1.0) / 2, rel=0.05)


def test_a_backlog_is_worked_off_at_the_pace_of_the_slots() -> None:
    fleet = deployed(4, laws=measured(overhead=1.0, **QUIET))
    run = fleet.trigger("burst", 40, 9)
    fleet.advance(55)
    assert fleet.states(run)["success"] == 20


def test_a_pool_holds_its_own_tasks_back_and_no_others() -> None:
    fleet = deployed(16, pools={"narrow": 2})
    narrow = fleet.trigger("narrow", 10, 60, pool="narrow")
    wide = fleet.trigger("wide", 10, 60)
    fleet.advance(20)
    assert fleet.states(narrow) == {"running": 2, "scheduled": 8}
    assert fleet.states(wide) == {"running": 10}


def test_parallelism_holds_tasks_back_where_slots_are_free() -> None:
    fleet = deployed(16, parallelism=5)
    run = fleet.trigger("wide", 10, 60)
    fleet.advance(20)
    assert fleet.states(run) == {"running": 5, "scheduled": 5}


def test_a_queue_waits_for_the_workers_that_listen_to_it() -> None:
    fleet = deployed(4)
    run = fleet.trigger("other", 2, 5, queue="heavy")
    fleet.advance(60)
    assert fleet.states(run) == {"queued": 2}
    fleet.start("heavy-0", "worker", {CONCURRENCY: "2"}, None, queues=("heavy",))
    fleet.advance(60)
    assert fleet.states(run) == {"success": 2}


def test_without_a_scheduler_nothing_is_handed_out() -> None:
    fleet = deployed()
    fleet.end("scheduler")
    run = fleet.trigger("sleep", 2, 5)
    fleet.advance(60)
    assert fleet.states(run) == {"scheduled": 2}


def test_a_cpu_limit_slows_what_computes_and_not_what_waits() -> None:
    took = {}
    for cpu in (0.0, 1.0):
        fleet = deployed(4, cores=2.03, laws=measured(overhead=0.01, **QUIET))
        run = fleet.trigger("work", 4, 30, cpu=cpu)
        started = fleet.now
        while fleet.states(run) != {"success": 4}:
            fleet.advance(0.25)
        took[cpu] = fleet.now - started
        throttled = fleet.reading("worker-0").cfs_throttled_periods
        assert (throttled > 300) == (cpu > 0)
    assert took[1.0] - took[0.0] == pytest.approx(30, abs=3)


# Parsing.


def parsing(
    files: int, seconds: float, environment: dict[str, str], cores: float | None = None, line: str = "3"
) -> float:
    """Cores that a dag-processor takes for its files."""
    fleet = Deployment(1, line=line, laws=measured(line, idle_cpu=0.0, **QUIET))
    fleet.files(files, seconds)
    fleet.start("dag-processor", "dag-processor", environment, None, cores)
    fleet.advance(300)
    before = fleet.reading("dag-processor").cpu_seconds
    fleet.advance(3600)
    return (fleet.reading("dag-processor").cpu_seconds - before) / 3600


INTERVAL_2 = "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL"
INTERVAL_3 = "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL"


@pytest.mark.parametrize(("files", "seconds", "interval"), [(20, 0.5, 60), (50, 1.0, 120), (10, 2.0, 100)])
def test_parsing_takes_files_times_seconds_by_interval(files: int, seconds: float, interval: int) -> None:
    cores = parsing(files, seconds, {INTERVAL_3: str(interval)})
    assert cores == pytest.approx(files * seconds / interval, rel=0.06)


def test_the_other_lines_names_are_ignored() -> None:
    default = parsing(20, 0.5, {})
    assert parsing(20, 0.5, {INTERVAL_2: "120"}) == default
    assert parsing(20, 0.5, {INTERVAL_3: "120"}, line="2") == parsing(20, 0.5, {}, line="2")
    assert parsing(20, 0.5, {INTERVAL_2: "120"}, line="2") == pytest.approx(10 / 120, rel=0.06)


def test_parsing_takes_no_more_cpu_than_its_processes_or_its_limit_give() -> None:
    assert parsing(200, 1.0, {}) == pytest.approx(2.0, rel=0.02)
    assert parsing(200, 1.0, {"AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "4"}) == pytest.approx(4.0, rel=0.06)
    assert parsing(200, 1.0, {}, cores=0.5) == pytest.approx(0.5, rel=0.02)


def test_a_parse_that_does_not_fit_is_killed_and_the_dag_processor_lives_on() -> None:
    fleet = Deployment(1, laws=measured(**QUIET))
    fleet.files(10, 1.0)
    fleet.start("dag-processor", "dag-processor", {}, 200 * MEBIBYTE)
    kills = fleet.advance(120)
    assert kills
    assert not any(kill.whole for kill in kills)
    assert fleet.reading("dag-processor").process_kills == len(kills)

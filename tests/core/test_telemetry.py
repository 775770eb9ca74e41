"""What Airflow says of itself, and the lies in it."""

from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import quote_plus

import pytest

from airflow_tuner import questions, signals, telemetry
from airflow_tuner.executor import UNKNOWN, Executors
from airflow_tuner.signals import Series
from airflow_tuner.telemetry import Pace, Pool
from airflow_tuner.triggers import Triggerer

HOME = {"instance": "10.0.0.7:9102", "job": "airflow"}
RATES = {
    "beats": 36.0,
    "known": 1200.0,
    "started": 0.5,
    "ended": 0.5,
    "ended_seconds": 1.5,
    "longest": 3.7,
    "critical": 1.0,
    "critical_seconds": 0.002,
    "busy_day": 14.0,
    "busy_day_samples": 1440.0,
    "files": 40.0,
    "parses": 2.0,
    "parse_seconds": 0.004,
    "oldest": 33.0,
}


def gauge(name: str, value: float, **labels: str) -> Series:
    return Series({"__name__": f"airflow_{name}", **HOME, **labels}, value)


GAUGES = (
    gauge("scheduler_heartbeat", 13, type="counter"),
    gauge("executor_open_slots", 3),
    gauge("executor_open_slots", 3, executor="CeleryExecutor"),
    gauge("executor_running_tasks", 29),
    gauge("executor_running_tasks", 29, executor="CeleryExecutor"),
    gauge("pool_open_slots", 0),
    gauge("pool_open_slots", 97, pool="default_pool"),
    gauge("pool_open_slots", 0, pool="für alle.7"),
    gauge("pool_queued_slots_default_pool", 29),
    gauge("pool_running_slots_default_pool", 2),
    gauge("pool_scheduled_slots_default_pool", 8),
    gauge("pool_running_slots_f_r_alle_7", 5),
    gauge("pool_scheduled_slots_f_r_alle_7", 1),
    gauge("dag_processing_total_parse_time", 4.5),
    gauge("dag_processing_file_path_queue_size", 12),
)
QUEUES = (
    Series({"__name__": "airflow_ti_queued", "queue": "default"}, 29),
    Series({"__name__": "airflow_ti_running", "queue": "default"}, 2),
    Series({"__name__": "airflow_ti_running", "queue": "heavy"}, 0),
)
FILES = (Series({"file": "quick"}, 0.0001), Series({"file": "slow"}, 0.002))


def read(
    gauges: tuple[Series, ...] = GAUGES,
    rates: Mapping[str, float] = RATES,
    queues: tuple[Series, ...] = QUEUES,
    line: str | None = "3",
    runs: Executors = UNKNOWN,
) -> telemetry.Airflow:
    answers = {
        questions.GAUGES.name: gauges,
        questions.QUEUES.name: queues,
        questions.AIRFLOW_RATES.name: tuple(Series({"signal": name}, value) for name, value in rates.items()),
        questions.SLOWEST_FILES.name: FILES,
    }
    return telemetry.read(answers, line, runs)


def tasks(**changes: object) -> telemetry.Tasks:
    found = read(**changes).tasks  # type: ignore[arg-type] # the arguments of `read`
    assert found is not None
    return found


def parsing(**changes: object) -> telemetry.Parsing:
    found = read(**changes).parsing  # type: ignore[arg-type] # the arguments of `read`
    assert found is not None
    return found


def without(*names: str) -> dict[str, float]:
    return {name: value for name, value in RATES.items() if name not in names}


def test_the_copy_of_a_pool_without_its_name_is_left_out() -> None:
    assert [pool.name for pool in tasks().pools] == ["default_pool", "f_r_alle_7"]


def test_the_state_of_a_pool_is_found_whatever_characters_its_name_has() -> None:
    assert tasks().pools[1] == Pool("f_r_alle_7", open=0, running=5, queued=0, scheduled=1)
    assert [pool.name for pool in tasks().pools if pool.full] == ["f_r_alle_7"]


def test_a_pool_without_end_counts_and_is_never_full() -> None:
    found = tasks(gauges=tuple(item for item in GAUGES if item.labels.get("pool") != "default_pool"))
    assert found.waiting_in(None) == 29
    assert (found.pools[0].full, found.startable) == (False, 8)


def test_the_executors_two_copies_are_not_added_up() -> None:
    assert (tasks().open_slots, tasks().handed_out, tasks().parallelism) == (3, 29, 32)


def test_of_several_executors_celerys_numbers_count() -> None:
    found = tasks(gauges=(*GAUGES, gauge("executor_running_tasks", 400, executor="KubernetesExecutor")))
    assert found.handed_out == 29


def test_a_backlog_is_what_waits_in_pools_and_queues_not_what_the_executor_says() -> None:
    found = tasks()
    assert (found.waiting_in(None), found.waiting_in(["default"]), found.waiting_in(["heavy"])) == (29, 29, 0)
    assert (found.running_in(None), found.running_in(["default", "heavy"])) == (7, 2)


def test_durations_are_means_and_absent_where_nothing_ended() -> None:
    assert (tasks().duration, tasks().critical, tasks().longest) == (3.0, 0.002, 3.7)
    assert tasks(rates={**RATES, "ended": 0.0}).duration is None
    assert tasks(rates=without("ended_seconds", "critical")).duration is None
    assert tasks(rates=without("critical")).critical is None


@pytest.mark.parametrize(("samples", "busy"), [(1440, 14), (1368, 14), (1367, None), (0, None)])
def test_a_day_with_holes_says_nothing_of_how_busy_it_was(samples: float, busy: int | None) -> None:
    assert tasks(rates={**RATES, "busy_day_samples": samples}).busy_day == busy
    assert tasks(rates=without("busy_day")).busy_day is None


def test_without_a_heartbeat_nothing_counts() -> None:
    found = read(GAUGES[1:])
    assert (found.tasks, found.parsing) == (None, None)
    assert "has no series of this Airflow (airflow_scheduler_heartbeat)" in found.problem
    assert read(()).problem == found.problem


@pytest.mark.parametrize(
    ("rates", "problem"),
    [
        ({**RATES, "beats": 0.0}, "The scheduler's heartbeat did not move in three minutes"),
        ({**without("known"), "beats": 0.0}, "The scheduler's heartbeat has been scraped for a moment only"),
        (without("beats"), "The scheduler's heartbeat has been scraped for a moment only"),
        ({}, "The scheduler's heartbeat has been scraped for a moment only"),
    ],
)
def test_gauges_that_outlive_their_scheduler_do_not_count(rates: Mapping[str, float], problem: str) -> None:
    found = read(rates=rates)
    assert (found.tasks, found.parsing) == (None, None)
    assert found.problem.startswith(problem)
    assert found.still is ("did not move" in problem)


def test_several_airflows_are_not_taken_for_one() -> None:
    other = replace(GAUGES[0], labels={**GAUGES[0].labels, "namespace": "other"})
    found = read((*GAUGES, other))
    assert found.tasks is None
    assert "has series of 2 Airflows" in found.problem
    assert "namespace=other" in found.problem
    assert "spec.metrics.airflowMatchLabels" in found.problem


def test_airflow_3_sends_seconds_where_milliseconds_are_meant() -> None:
    three, two = parsing(), parsing(line="2")
    assert three.seconds == pytest.approx(2.0)
    assert two.seconds == pytest.approx(0.002)
    assert [(file.name, file.seconds) for file in three.slowest] == [("slow", 2.0), ("quick", pytest.approx(0.1))]
    assert (three.files, three.cycle, three.oldest, three.loop, three.queue) == (40, 20.0, 33.0, 4.5, 12)


@pytest.mark.parametrize("name", ["files", "parses", "parse_seconds"])
def test_parsing_that_is_not_fully_known_is_absent(name: str) -> None:
    assert read(rates=without(name)).parsing is None
    if name != "parse_seconds":
        assert read(rates={**RATES, name: 0.0}).parsing is None


def test_parsing_is_absent_where_the_unit_is_not_known() -> None:
    assert read(line=None).parsing is None
    assert read(line=None).tasks is not None


def test_airflow_2_has_no_queues() -> None:
    found = tasks(queues=(), line="2")
    assert (found.queued, found.running, found.waiting_in(None)) == ({}, {}, 29)


def test_the_pace_of_a_dag_is_told_against_the_most_of_a_day_and_of_a_week_before() -> None:
    def told(signal: str, value: float, **labels: str) -> Series:
        return Series({"signal": signal, **labels}, value)

    answers = {
        questions.GAUGES.name: GAUGES,
        questions.AIRFLOW_RATES.name: (
            *(told(name, value) for name, value in RATES.items()),
            told("dags_now", 900.4),
            told("dag_now", 20.0, dag_id="calm"),
            told("dag_day", -3.0, dag_id="calm"),
            told("dag_now", 800.4, dag_id="wild"),
            told("dag_day", 12.0, dag_id="wild"),
            told("dag_week", 31.0, dag_id="wild"),
            told("dag_now", 80.0, dag_id="new"),
            told("dag_week", 31.0, dag_id="new"),
            told("dag_day", 31.0, dag_id="gone"),
        ),
    }
    found = telemetry.read(answers, "3").tasks
    assert found is not None
    assert found.pace == 900
    assert found.paces == (Pace("wild", 800, 31), Pace("new", 80, None), Pace("calm", 20, 0))


def test_the_last_start_of_a_task_is_known_to_a_quarter_of_an_hour() -> None:
    known = {**RATES, "looks": 8.0}
    assert tasks(rates={**known, "quiet": 0.0}).quiet == 0
    assert tasks(rates={**known, "quiet": 15.0}).quiet == 0
    assert tasks(rates={**known, "quiet": 30.0}).quiet == 150
    assert tasks(rates=known).quiet == 1020
    assert tasks(rates={**without("started"), "looks": 8.0}).quiet is None


def test_that_nothing_starts_is_not_known_where_scrapes_are_too_rare_for_a_rate() -> None:
    assert tasks(rates={**RATES, "quiet": 30.0}).quiet is None
    assert tasks(rates={**RATES, "quiet": 30.0, "looks": 6.0}).quiet is None


def test_the_least_of_two_minutes_is_absent_where_it_is_not_told() -> None:
    told = (*QUEUES, Series({"signal": "queued_least", "queue": "default"}, 7))
    found = tasks(rates={**RATES, "handed_out_least": 29.0, "waiting_least": 0.0}, queues=told)
    assert (found.handed_out_least, found.waiting_least, found.queued_least) == (29, 0, {"default": 7})
    assert (found.queued, found.running) == ({"default": 29}, {"default": 2, "heavy": 0})
    assert (tasks().handed_out_least, tasks().waiting_least, tasks().queued_least) == (None, None, {})


def test_the_scheduler_its_triggerers_and_import_errors_are_read_and_absent_without_their_sender() -> None:
    told = {**RATES, "loops": 0.5, "loop_seconds": 0.2, "import_errors": 2.0}
    told |= {"triggers": 4.0, "triggers_free": 0.0, "triggerer_beats": 35.0}
    found = read(rates=told)
    assert (found.loop, found.beats, found.import_errors) == (0.4, 36.0, 2)
    assert found.triggerer == Triggerer(running=4, free=0)
    between = read(rates={**told, "parses": 0.0})
    assert between.import_errors == 2, "between two rounds"
    old = read(rates={**told, "parses": 0.0, "files": 0.0, "triggerer_beats": 0.0, "loops": 0.0})
    assert (old.loop, old.import_errors, old.triggerer) == (None, None, None)
    assert read().triggerer is None


def test_no_question_is_longer_than_what_a_proxy_takes_in_a_url() -> None:
    # 8 KiB, with labels of a usual length.
    labels = 'cluster="production-europe",namespace="airflow-production"'
    scope = signals.Scope(container=labels, cluster=labels, airflow=labels, window=300, rounds=1200, tasks=labels)
    for signal in (*signals.MEMORY, *signals.CONTAINERS, signals.TASK_RUNS, *questions.AIRFLOW):
        assert len(quote_plus(signals.query(signal, scope))) < 7000, signal.name

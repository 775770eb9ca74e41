"""The fleet model shows Airflow's series as the official chart's mapping does, with what is untrue about them."""

import re
from collections.abc import Iterator

import pytest

from airflow_tuner import questions
from airflow_tuner.fleet import Deployment, Laws

BEATS = "airflow_scheduler_heartbeat"


def busy(line: str) -> Deployment:
    """All components run, and tasks wait and have ended."""
    fleet = Deployment(1, line=line, laws=Laws.measured(line))
    for component in ("scheduler", "dag-processor", "triggerer"):
        fleet.start(component, component, {}, None)
    fleet.start("worker-0", "worker", {"AIRFLOW__CELERY__WORKER_CONCURRENCY": "2"}, None)
    fleet.files(3, 4.0)
    fleet.advance(60)
    fleet.trigger("load", 20, 10)
    fleet.advance(65)
    return fleet


def shown(fleet: Deployment, name: str, **labels: str) -> float:
    """The value of one series."""
    (found,) = [value for series, told, value in fleet.samples() if series == name and told == labels]
    return found


def expanded(pattern: str) -> Iterator[str]:
    """The alternatives of a pattern of names, one by one."""
    group = re.search(r"\(([^()]*)\)", pattern)
    if group is None:
        yield pattern
        return
    for part in group[1].split("|"):
        yield from expanded(pattern[: group.start()] + part + pattern[group.end() :])


def asked() -> set[str]:
    """Patterns of all names that the product asks Airflow's exporter for."""
    found = set()
    for signal in questions.AIRFLOW:
        found |= set(re.findall(r"\b(airflow_\w+)\{", signal.promql))
        for pattern in re.findall(r'__name__=~"([^"]+)"', signal.promql):
            # The innermost groups come first, so an outer one is split only once it holds no other.
            found |= set(expanded(pattern))
    return found


NEVER = {"airflow_local_task_job_task_exit_.+__9", "airflow_task_mem_usage_.+"}
"""The model counts no tasks by the signal that ended them, and does not weigh them one by one."""


@pytest.mark.parametrize("line", ["2", "3"])
def test_all_that_the_product_asks_for_is_shown(line: str) -> None:
    names = {name for name, _, _ in busy(line).samples()}
    missing = {pattern for pattern in asked() if not any(re.fullmatch(pattern, name) for name in names)}
    only_3 = {"airflow_ti_queued", "airflow_ti_running", "airflow_ti_scheduled", "airflow_triggerer_capacity_left"}
    assert missing - NEVER == (set() if line == "3" else only_3)


def test_the_patterns_of_names_are_read_in_full() -> None:
    assert {"airflow_executor_open_slots", "airflow_pool_queued_slots_.+", "airflow_ti_queued"} <= asked()
    assert len(asked()) > 15


def test_on_airflow_3_the_executors_gauges_come_twice() -> None:
    series = [told for name, told, _ in busy("3").samples() if name == "airflow_executor_open_slots"]
    assert series == [{}, {"executor": "CeleryExecutor"}]
    series = [told for name, told, _ in busy("2").samples() if name == "airflow_executor_open_slots"]
    assert series == [{}]


def test_the_executors_running_tasks_are_all_that_were_handed_out() -> None:
    fleet = busy("3")
    assert fleet.running == 2
    assert shown(fleet, "airflow_executor_running_tasks") == fleet.handed_out > 2
    assert shown(fleet, "airflow_executor_queued_tasks") == 0
    assert shown(fleet, "airflow_pool_running_slots_default_pool") == 2


def test_parse_times_are_a_thousandth_on_airflow_3_and_true_on_airflow_2() -> None:
    for line, name, told in (("3", "dags_folder_dag_0", 0.004), ("2", "dag_0", 4.0)):
        series = f"airflow_dag_processing_last_duration_{name}"
        fleet = busy(line)
        mean = shown(fleet, f"{series}_sum") / shown(fleet, f"{series}_count")
        assert mean == pytest.approx(told, rel=0.01)


def test_queue_times_are_a_thousandth_on_airflow_2_and_missing_on_airflow_3() -> None:
    fleet = busy("2")
    mean = shown(fleet, "airflow_task_queued_duration_sum") / shown(fleet, "airflow_task_queued_duration_count")
    assert 0.005 < mean < 0.05
    assert not [name for name, _, _ in busy("3").samples() if "queued_duration" in name]


def test_states_of_tasks_are_told_every_half_minute_and_as_zero_once_emptied() -> None:
    fleet = busy("3")
    labels = {"queue": "default", "dag_id": "load", "task_id": "task"}
    assert shown(fleet, "airflow_ti_queued", **labels) > 0
    fleet.advance(300)
    assert shown(fleet, "airflow_ti_queued", **labels) == 0


def test_how_long_ago_a_file_was_parsed_outlives_the_file() -> None:
    fleet = busy("3")
    fleet.files(1, 4.0)
    fleet.advance(600)
    first, gone = (
        shown(fleet, "airflow_dag_processing_last_run_seconds_ago", dag_file="dag_0"),
        shown(fleet, "airflow_dag_processing_last_run_seconds_ago", dag_file="dag_2"),
    )
    fleet.advance(40)
    assert shown(fleet, "airflow_dag_processing_last_run_seconds_ago", dag_file="dag_2") == gone
    assert shown(fleet, "airflow_dag_processing_last_run_seconds_ago", dag_file="dag_0") != first
    assert shown(fleet, "airflow_dagbag_size") == 1


def test_heartbeats_stop_with_the_scheduler_and_gauges_stay() -> None:
    fleet = busy("3")
    fleet.end("scheduler")
    before = shown(fleet, "airflow_scheduler_heartbeat", type="counter")
    slots = shown(fleet, "airflow_executor_open_slots")
    fleet.advance(60)
    assert shown(fleet, "airflow_scheduler_heartbeat", type="counter") == before > 10
    assert shown(fleet, "airflow_executor_open_slots") == slots


def test_durations_of_tasks_are_told_in_seconds_with_quantiles() -> None:
    fleet = busy("3")
    labels = {"dag_id": "load", "task_id": "task"}
    assert shown(fleet, "airflow_task_duration", quantile="0.99", **labels) == pytest.approx(11.3, abs=0.1)


def test_a_lock_shows_in_the_critical_section_alone_and_the_scheduler_computes_less() -> None:
    fleet = busy("3")
    used = fleet.reading("scheduler").cpu_seconds / fleet.now
    name = "airflow_scheduler_critical_section"
    before = {part: shown(fleet, f"{name}_{part}") for part in ("duration_sum", "duration_count", "query_duration_sum")}
    began = fleet.reading("scheduler").cpu_seconds
    fleet.lock_database(2.3)
    fleet.advance(60)
    grown = {part: shown(fleet, f"{name}_{part}") - value for part, value in before.items()}
    assert grown["duration_sum"] / grown["duration_count"] == pytest.approx(2.306, abs=0.05)
    assert grown["query_duration_sum"] / grown["duration_count"] == pytest.approx(0.003)
    assert (fleet.reading("scheduler").cpu_seconds - began) / 60 < used


def test_a_scheduler_short_of_cpu_has_slow_loops_and_beats_late() -> None:
    fleet = busy("3")
    fleet.burden(0.8)
    fleet.resize("scheduler", None, 0.06)
    fleet.advance(60)
    name = "airflow_scheduler_scheduler_loop_duration"
    before, beats = (shown(fleet, f"{name}_sum"), shown(fleet, f"{name}_count")), shown(fleet, BEATS, type="counter")
    fleet.advance(300)
    assert (shown(fleet, f"{name}_sum") - before[0]) / (shown(fleet, f"{name}_count") - before[1]) > 5
    assert shown(fleet, BEATS, type="counter") - beats < 60


def test_a_frozen_scheduler_tells_nothing_and_goes_on_where_it_stood() -> None:
    fleet = busy("3")
    fleet.freeze("scheduler")
    before, used = shown(fleet, BEATS, type="counter"), fleet.reading("scheduler").cpu_seconds
    fleet.advance(60)
    assert (shown(fleet, BEATS, type="counter"), fleet.reading("scheduler").cpu_seconds) == (before, used)
    fleet.freeze("scheduler", frozen=False)
    fleet.advance(60)
    assert shown(fleet, BEATS, type="counter") > before


def test_a_full_triggerer_and_files_that_cannot_be_imported_are_told() -> None:
    fleet = busy("3")
    fleet.defer(1200)
    fleet.break_files(2)
    fleet.advance(70)
    assert shown(fleet, "airflow_triggerer_capacity_left") == 0
    assert shown(fleet, "airflow_triggers_running") == 1000
    assert shown(fleet, "airflow_dag_processing_import_errors") == 2
    fleet.break_files(0)
    fleet.advance(70)
    assert shown(fleet, "airflow_dag_processing_import_errors") == 0


def test_what_is_shown_can_be_chosen_by_name() -> None:
    fleet = busy("3")
    chosen = fleet.samples(lambda name: name == "airflow_ti_start")
    assert chosen == [sample for sample in fleet.samples() if sample[0] == "airflow_ti_start"]


def test_a_slow_database_shows_in_the_critical_query() -> None:
    fleet = busy("3")
    fleet.slow_database(2.0)
    name = "airflow_scheduler_critical_section_query_duration"
    before = shown(fleet, f"{name}_sum"), shown(fleet, f"{name}_count")
    fleet.advance(60)
    seconds, loops = shown(fleet, f"{name}_sum") - before[0], shown(fleet, f"{name}_count") - before[1]
    assert seconds / loops == pytest.approx(2.0)

"""The 2.x line in the same pods: what the tuner reads of Airflow 2.11.2, with the units it really has."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from testbed import demo, operator_process, slot_experiments, slow_files
from testbed.airflow_lines import AIRFLOW_2, Line
from testbed.operator_process import Operator
from testbed.real_airflow import RealAirflow

RUN_SECONDS = 180.0
STATS_SECONDS = 60.0  # the dag-processor tells of its files every 30 s
COUNT = 24
SECONDS = 2

# A series of every kind that the tuner reads, beside those whose values the tests look at.
SERIES = (
    "airflow_dag_processing_total_parse_time",
    'airflow_dag_processing_last_run_seconds_ago{dag_file="slow_000"}',
    'airflow_scheduler_heartbeat{type="counter"}',
    "airflow_scheduler_critical_section_query_duration_count",
    "airflow_scheduler_critical_section_query_duration_sum",
    "airflow_ti_start",
)


@pytest.fixture(scope="module")
def two(running: Callable[[Line], AbstractContextManager[RealAirflow]]) -> Iterator[RealAirflow]:
    """Everything of a real Airflow 2, running; it ends with this module, so that Airflow 3 finds room."""
    with running(AIRFLOW_2) as started:
        yield started


@pytest.fixture(scope="module")
def run_id(two: RealAirflow) -> str:
    """A run of more short tasks than the worker's two slots take at once."""
    two.airflow.wait_for_dag("short_tasks")
    return two.airflow.trigger("short_tasks", {"count": COUNT, "seconds": SECONDS})


def test_all_components_are_healthy_with_the_official_charts_labels(two: RealAirflow) -> None:
    assert two.airflow.healthy()
    assert two.airflow.call("GET", "/version")["version"] == AIRFLOW_2.version
    labels = [pod["metadata"]["labels"] for pod in two.airflow.pods()]
    assert sorted(label["component"] for label in labels) == sorted(AIRFLOW_2.components)
    for label in labels:
        assert set(label) == {"tier", "component", "release", "pod-template-hash"}


def test_a_backlog_shows_in_pools_and_the_executor(two: RealAirflow, run_id: str) -> None:
    backlog = "airflow_pool_queued_slots_default_pool > 10 and on() airflow_pool_running_slots_default_pool == 2"
    two.airflow.wait_until(lambda: bool(two.prometheus.query(backlog)), f"the backlog of {run_id}", RUN_SECONDS)
    # Read at one moment, as the gauges of a pool are sent together.
    slots = two.prometheus.query(
        'airflow_pool_open_slots{pool="default_pool"} + on() airflow_pool_queued_slots_default_pool'
        " + on() airflow_pool_running_slots_default_pool"
    )
    assert [sample["value"][1] for sample in slots] == ["128"]
    assert _value(two, "airflow_executor_open_slots + airflow_executor_running_tasks") == 32
    # Under Celery a task that waits in the broker is "running".
    assert _value(two, "airflow_executor_running_tasks") > 2
    assert two.prometheus.query('{__name__=~"airflow_ti_(queued|running|scheduled)"}') == []


def test_a_run_of_short_tasks_succeeds(two: RealAirflow, run_id: str) -> None:
    airflow = two.airflow
    airflow.wait_until(
        lambda: airflow.run_state("short_tasks", run_id) in {"success", "failed"}, "the run to end", RUN_SECONDS
    )
    tasks = airflow.task_states("short_tasks", run_id)
    assert [(task.state, task.try_number) for task in tasks] == [("success", 1)] * (COUNT + 1), airflow.describe()


def test_timers_have_the_units_that_the_tuner_takes_them_for(two: RealAirflow, run_id: str) -> None:
    started = COUNT + 1  # with the task that makes the others
    ended = 'airflow_task_duration_count{dag_id=""}'  # it has twins with labels
    told = f"airflow_task_queued_duration_count == {started} and on() {ended} == {started}"
    two.airflow.wait_until(lambda: bool(two.prometheus.query(told)), "the timers of all tasks", RUN_SECONDS)
    # The work itself: the start of a task's process, which holds the slot too, is not in it.
    ran = _value(two, 'airflow_task_duration_sum{dag_id="short_tasks", task_id="work"}')
    assert ran == pytest.approx(COUNT * SECONDS, rel=0.1)
    ((queued,),) = two.services.postgresql.query(
        "select sum(extract(epoch from start_date - queued_dttm)) from task_instance where run_id = :'run_id'",
        run_id=run_id,
    )
    # Seconds, sent as milliseconds.
    assert _value(two, "airflow_task_queued_duration_sum") * 1000 == pytest.approx(float(queued), rel=0.1)


def test_parsing_shows_with_true_durations_and_every_series_is_there(two: RealAirflow) -> None:
    slow_files.write(two.airflow, 1, cpu_seconds=1)
    missing = set(SERIES)

    def complete() -> bool:
        nonlocal missing
        missing = {series for series in SERIES if not two.prometheus.query(series)}
        return not missing

    two.airflow.wait_until(complete, f"the series {', '.join(SERIES)}", STATS_SECONDS)
    parsing = "airflow_dag_processing_last_duration_slow_000"
    assert 1 <= _value(two, f"{parsing}_sum / {parsing}_count") < 10
    slow_files.remove(two.airflow)


def test_slow_files_are_parsed_less_often_after_a_restart_by_the_names_of_this_line(two: RealAirflow) -> None:
    url = two.prometheus.url
    operator_process.install_chart(two.control_plane, url, *operator_process.MAY_READ_BROKER)
    slot_experiments.apply_policy(two, dagProcessor=slot_experiments.PARSING, changes={"restarts": {"allowed": True}})
    old = two.airflow.pods("dag-processor")[0]["metadata"]["name"]

    def successors() -> list[str]:
        names = [pod["metadata"]["name"] for pod in two.airflow.pods("dag-processor")]
        return [name for name in names if name != old]

    with Operator(two.area, two.control_plane, url, [two.airflow.namespace]) as operator:
        slot_experiments.settle(two)
        slow_files.write(two.airflow, 40, cpu_seconds=0.3)
        two.airflow.wait_until(lambda: bool(successors()), "the dag-processor to be restarted", 240)
        (change,) = slot_experiments.changes(two, "ParsingOverloaded")
        assert "Traceback" not in operator.log()
    slow_files.remove(two.airflow)
    assert demo.environment_of(two, successors()[0]) == {
        "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": f"{change['to']['parsingIntervalSeconds']}"
    }
    assert change["to"]["parsingIntervalSeconds"] > 10
    assert "slow_0" in change["message"], "the slowest files are named"


def _value(two: RealAirflow, promql: str) -> float:
    (sample,) = two.prometheus.query(promql)
    return float(sample["value"][1])

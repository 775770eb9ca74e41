"""How Airflow's metrics are named: the same is read in each naming, and the right one is chosen."""

import re
from dataclasses import replace
from urllib.parse import quote_plus

import pytest

from airflow_tuner import api, questions, report, signals, telemetry
from airflow_tuner.namings import CHART, NAMINGS, OPENTELEMETRY, TAGGED, Naming, chosen
from airflow_tuner.signals import Series
from core.worlds import observed, pod, spec, turn, worker

STATES = {"queued": 29, "running": 2, "scheduled": 8}
RATES = {"beats": 36.0, "known": 1200.0, "started": 0.5, "ended": 0.5, "ended_seconds": 1.5, "longest": 3.7}
RATES |= {"critical": 1.0, "critical_seconds": 0.002, "parses": 2.0, "parse_seconds": 0.004}
FILES = {"files": 40.0, "parsed": 40.0, "oldest": 33.0}


def by_chart() -> tuple[Series, ...]:
    """The gauges as the official chart's exporter gives them: every pool and executor twice."""
    home = {"job": "airflow", "instance": "10.0.0.7:9102"}
    labelled = [
        ("scheduler_heartbeat", 13, {"type": "counter"}),
        ("executor_open_slots", 3, {}),
        ("executor_open_slots", 3, {"executor": "CeleryExecutor"}),
        ("executor_running_tasks", 29, {"executor": "CeleryExecutor"}),
        ("pool_open_slots", 97, {}),
        ("pool_open_slots", 97, {"pool": "small.one"}),
        *((f"pool_{state}_slots_small_one", number, {}) for state, number in STATES.items()),
        ("dag_processing_total_parse_time", 4.5, {}),
    ]
    return tuple(Series({"__name__": f"airflow_{name}", **home, **labels}, value) for name, value, labels in labelled)


def by_labels(total: str = "", executor: str = "executor_class_name", **more: str) -> tuple[Series, ...]:
    """The same by tags, of StatsD or of OpenTelemetry."""
    celery = {executor: "CeleryExecutor"}
    labelled = [
        (f"scheduler_heartbeat{total}", 13, {}),
        ("executor_open_slots", 3, {**celery, "status": "open"}),
        ("executor_running_tasks", 29, {**celery, "status": "running"}),
        ("pool_open_slots", 97, {"pool_name": "small.one"}),
        *((f"pool_{state}_slots", number, {"pool_name": "small.one"}) for state, number in STATES.items()),
        ("dag_processing_total_parse_time", 4.5, {}),
    ]
    return tuple(
        Series({"__name__": f"airflow_{name}", "job": "airflow", **labels, **more}, value)
        for name, value, labels in labelled
    )


def read(on: Naming, gauges: tuple[Series, ...], label: str, line: str = "3") -> telemetry.Airflow:
    """What is read of them, with rates that are the same in all namings, and one slow file under this label."""
    told = {
        questions.GAUGES.name: gauges,
        questions.QUEUES.name: (Series({"__name__": "airflow_ti_queued", "queue": "default"}, 29),),
        questions.AIRFLOW_RATES.name: tuple(Series({"signal": name}, value) for name, value in RATES.items()),
        questions.SLOWEST_FILES.name: (
            Series({label: "slow"}, 0.002),
            *(Series({"signal": name}, value) for name, value in FILES.items()),
        ),
    }
    return telemetry.read({name: signals.canonical(found, on) for name, found in told.items()}, line)


def test_the_same_is_read_out_of_the_same_world_in_each_naming() -> None:
    expected = read(CHART, by_chart(), "file")
    assert expected.tasks is not None
    assert expected.parsing is not None
    assert expected.tasks.pools == (telemetry.Pool("small_one", open=97, running=2, queued=29, scheduled=8),)
    assert (expected.tasks.open_slots, expected.tasks.handed_out) == (3, 29)
    assert (expected.parsing.files, expected.parsing.slowest[0]) == (40, telemetry.ParsedFile("slow", 2.0))
    assert read(TAGGED, by_labels(instance="10.0.0.7:9102"), "file_name") == expected
    assert read(TAGGED, by_labels(instance="10.0.0.7:9102", executor="name"), "file_name") == expected, "Airflow 2"
    assert read(OPENTELEMETRY, by_labels("_total", instance="5d0f"), "file_name") == expected


def test_several_schedulers_by_opentelemetry_are_one_airflow() -> None:
    both = (
        *by_labels("_total", instance="one", k8s_pod_name="scheduler-0"),
        *by_labels("_total", instance="other", k8s_pod_name="scheduler-1"),
    )
    assert read(OPENTELEMETRY, both, "file_name") == read(CHART, by_chart(), "file")
    two = (*by_labels("_total", instance="one"), *by_labels("_total", instance="one", namespace="other"))
    assert "has series of 2 Airflows" in read(OPENTELEMETRY, two, "file_name").problem


def test_of_what_several_processes_tell_the_most_counts() -> None:
    gauges = tuple(
        Series({"__name__": "airflow_pool_queued_slots", "pool_name": "p", "instance": instance}, value)
        for instance, value in (("one", 3), ("other", 7), ("third", 5))
    )
    assert signals.canonical(gauges, OPENTELEMETRY) == (
        Series({"__name__": "airflow_pool_queued_slots", "pool": "p"}, 7),
    )
    assert len(signals.canonical(gauges, TAGGED)) == 3, "exporters are told apart"


@pytest.mark.parametrize(
    ("moved", "expected"),
    [
        ({}, None),
        ({"Chart": 0.0}, CHART),
        ({"Chart": 9.0, "Tagged": 9.0}, TAGGED),
        ({"Chart": 9.0, "Tagged": 0.0}, CHART),
        ({"Chart": 0.0, "Tagged": 0.0}, TAGGED),
        ({"Chart": 0.0, "Tagged": 0.0, "OpenTelemetry": 50.0}, OPENTELEMETRY),
        ({"Chart": 9.0, "OpenTelemetry": 0.0}, CHART),
        ({"Another": 9.0}, None),
    ],
)
def test_of_several_namings_one_that_moves_is_chosen(moved: dict[str, float], expected: Naming | None) -> None:
    assert chosen(moved) is expected


def test_a_policy_can_state_every_naming_there_is() -> None:
    assert {str(one) for one in api.Naming} == {*NAMINGS}
    assert (
        api.Spec.model_validate({"airflow": {"release": "a"}, "metrics": {"naming": "OpenTelemetry"}}).metrics.naming
        is api.Naming.OPENTELEMETRY
    )


@pytest.mark.parametrize("on", NAMINGS.values(), ids=lambda one: one.name)
def test_every_naming_asks_as_many_questions_and_none_too_long_for_a_url(on: Naming) -> None:
    # 8 KiB, with labels of a usual length.
    labels = 'cluster="production-europe",namespace="airflow-production"'
    scope = signals.Scope(container=labels, cluster=labels, airflow=labels, window=300, rounds=1200, naming=on)
    for signal in (*questions.AIRFLOW, questions.NAMED):
        text = signals.query(signal, scope)
        assert len(quote_plus(text)) < 7000, signal.name
        # What is left stands for a part of a label, in Prometheus' own way.
        assert "$" not in re.sub(r"\$(\{1\}|1|2)(?=[\"_])", "", text), signal.name
        assert text.count(labels) == text.count("airflow-production")


def test_a_naming_asks_for_all_that_the_charts_has_but_what_it_does_not_tell() -> None:
    for on in NAMINGS.values():
        assert set(questions.rates(on)) == set(questions.RATES)
        assert set(questions.files(on)) == set(questions.FILES)
        absent = set(questions.SIGNS) - set(questions.signs(on))
        assert absent == ({"dag_now", "dag_day", "dag_week", "dags_now"} if on is OPENTELEMETRY else set()), on.name


def test_the_naming_is_shown_in_status_and_report() -> None:
    seen = observed(worker(pod()))
    last = turn(spec(), seen)
    assert last.status.metrics_naming == ""
    seen = replace(seen, naming="OpenTelemetry", airflow=read(CHART, by_chart(), "file"))
    last = turn(spec(), seen)
    assert last.status.metrics_naming == "OpenTelemetry"
    told = " ".join(report.text("n/p", last.seen, last.findings).split())
    assert "as Airflow's OpenTelemetry exporter names them (metrics.naming: OpenTelemetry)" in told
    assert report.document("n/p", last.seen, last.findings)["metricsNaming"] == "OpenTelemetry"

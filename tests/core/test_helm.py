"""What is recommended, as a values file for the official chart."""

from dataclasses import replace

import pytest
import yaml

from airflow_tuner import helm
from airflow_tuner.model import Memory, Values, Workload
from core.test_concurrency import celery, crowded
from core.test_parsing import crawling, overloaded, parsed
from core.worlds import (
    NOW,
    Turn,
    airflow,
    observed,
    parsing_spec,
    pod,
    scheduler,
    slots_spec,
    spec,
    turn,
    usage,
    worker,
)

OLD, NEW = "airflow-1.19.0", "airflow-1.20.0"


def charted(chart: str, workload: Workload | None = None) -> Turn:
    bare = worker(pod(usage=usage(cpu=0.1)), stated=Values(concurrency=2))
    return turn(slots_spec(mode="Recommend"), crowded(of=replace(workload or bare, chart=chart)))


def tree(last: Turn, line: str = "3") -> object:
    return yaml.safe_load(helm.values(last.decision, line))


def test_where_nothing_is_recommended_there_is_no_file() -> None:
    last = turn(spec(mode="Recommend"), observed(worker(pod())))
    assert (helm.values(last.decision, "3"), last.status.helm_values) == ("", "")


@pytest.mark.parametrize("chart", [NEW, "airflow-1.22.0", "airflow-2.0.0-rc1", ""])
def test_a_new_chart_has_celery_workers_under_a_key_of_their_own(chart: str) -> None:
    resources = {"requests": {"memory": "784Mi"}, "limits": {"memory": "1024Mi"}}
    assert tree(charted(chart)) == {
        "workers": {"celery": {"resources": resources}},
        "config": {"celery": {"worker_concurrency": 4}},
    }


def test_an_old_chart_has_them_under_workers() -> None:
    resources = {"requests": {"memory": "784Mi"}, "limits": {"memory": "1024Mi"}}
    assert tree(charted(OLD)) == {"workers": {"resources": resources}, "config": {"celery": {"worker_concurrency": 4}}}


def test_the_file_says_how_it_is_used() -> None:
    assert helm.values(charted(NEW).decision, "3").startswith(
        "# Values for the official Airflow chart: helm upgrade RELEASE apache-airflow/airflow --reuse-values -f FILE\n"
    )


def test_slots_alone_leave_the_resources_out() -> None:
    idle = crowded(0, 0, of=replace(celery(16, busy=0), environment={}), busy_day=2)
    last = turn(slots_spec(mode="Recommend"), idle)
    assert tree(last) == {"config": {"celery": {"worker_concurrency": 12}}}


def test_a_variable_that_overrules_the_config_is_told() -> None:
    text = helm.values(charted(NEW, celery()).decision, "3")
    assert "worker_concurrency: 4" in text
    assert (
        "# AIRFLOW__CELERY__WORKER_CONCURRENCY stands in the environment of StatefulSet/airflow-worker, which goes "
        "before config: change it there.\n"
    ) in text


def test_a_set_of_workers_is_the_users_list_and_so_a_note() -> None:
    limits = {"memory": {"min": "512Mi", "max": "4Gi"}, "concurrency": {"min": 1, "max": 16}}
    heavy = replace(celery(), target="worker/heavy", name="airflow-worker-heavy", chart=NEW)
    last = turn(slots_spec(workers=[{"name": "*", **limits}], mode="Recommend"), crowded(of=heavy))
    text = helm.values(last.decision, "3")
    assert tree(last) is None
    assert "# In your entry of workers.celery.sets for heavy: resources {'requests': {'memory': '784Mi'}" in text
    assert "worker_concurrency 4." in text


@pytest.mark.parametrize(("line", "section"), [("2", "scheduler"), ("3", "dag_processor")])
def test_each_line_has_its_own_section_for_parsing(line: str, section: str) -> None:
    seen = replace(overloaded(), line=line, airflow=airflow(parsing=parsed()))
    last = turn(parsing_spec(mode="Recommend"), seen)
    assert tree(last, line) == {"config": {section: {"min_file_process_interval": 120}}}


def test_processes_are_told_beside_the_interval() -> None:
    last = turn(parsing_spec(processes=(1, 8), mode="Recommend"), crawling())
    assert tree(last) == {"config": {"dag_processor": {"parsing_processes": 5}}}


def test_other_components_have_resources_under_their_own_keys() -> None:
    policy = spec(mode="Recommend", scheduler={"memory": {"min": "512Mi", "max": "4Gi"}})
    last = turn(policy, observed(scheduler(pod("airflow-scheduler-1", died=NOW)), worker()))
    resources = {"requests": {"memory": "512Mi"}, "limits": {"memory": "1536Mi"}}
    assert tree(last) == {"scheduler": {"resources": resources}}


def test_a_file_that_is_too_long_for_a_status_is_left_to_the_command() -> None:
    heavy = [
        replace(
            worker(pod(f"p{number}", request=None, limit=None, usage=usage(working_set=900)), template=Memory()),
            target=f"worker/{number:03}{'x' * 60}",
            name=f"airflow-worker-{number:03}",
            requests={},
            limits={},
        )
        for number in range(64)
    ]
    workers = [{"name": "*", "memory": {"min": "512Mi", "max": "4Gi"}}]
    last = turn(spec(mode="Recommend", workers=workers), observed(*heavy))
    assert last.status.helm_values == "# Too long for a status: see `airflow-tuner plan --helm-values`.\n"
    assert len(helm.values(last.decision, "3")) > 8192

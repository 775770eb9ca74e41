"""The environment of new pods: Airflow's options for what is tuned, in the spec's bounds, and never over the user's.

As in the room beside it, the chart is installed, no operator runs, and statuses are written by hand.
"""

import json
from collections.abc import Callable, Iterator

import pytest

from cluster.admission import (
    DECISION,
    ORIGINAL_ENVIRONMENT,
    POOL,
    TEMPLATE,
    TUNED,
    Airflow,
    Object,
    airflow_with_policy,
    entry,
    environment,
    eventually,
    is_tuned,
    is_untouched,
    labels,
    plane_with_chart,
    pod,
    resources,
)
from testbed.commands import CommandFailed
from testbed.controlplane import ControlPlane

CONCURRENCY, AUTOSCALE = "AIRFLOW__CELERY__WORKER_CONCURRENCY", "AIRFLOW__CELERY__WORKER_AUTOSCALE"
INTERVAL, PROCESSES = "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL", "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES"
INTERVAL_2, PROCESSES_2 = "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL", "AIRFLOW__SCHEDULER__PARSING_PROCESSES"
PARSER: Object = {
    "target": "dag-processor",
    "component": "dag-processor",
    "bounds": "dagProcessor",
    "container": "dag-processor",
    "workload": "Deployment/airflow-dag-processor",
    "podLabels": labels("dag-processor"),
}


def variables(**values: str) -> list[Object]:
    """Returns variables with plain values, by name."""
    return [{"name": name, "value": value} for name, value in sorted(values.items())]


def by_reference(name: str) -> Object:
    """Returns a variable whose value is somewhere else."""
    return {"name": name, "valueFrom": {"configMapKeyRef": {"name": "ours", "key": "slots"}}}


SLOTS = variables(**{CONCURRENCY: "8", AUTOSCALE: "8,8"})


def parser(*env: Object) -> Object:
    """Returns a pod of the dag-processor."""
    return pod(labels("dag-processor"), container="dag-processor", env=env)


def with_template(*env: Object) -> Object:
    """Returns the baseline of a template with these variables."""
    return {**TEMPLATE, "env": list(env)}


@pytest.fixture(scope="module")
def plane(needs: Callable[..., None]) -> Iterator[ControlPlane]:
    """Runs a control plane with the chart."""
    needs("control-plane", "helm")
    with plane_with_chart("environment") as running:
        yield running


@pytest.fixture(scope="module")
def installed(plane: ControlPlane) -> Airflow:
    """Returns the namespace `airflow` with a worker."""
    airflow = airflow_with_policy(plane)
    airflow.deploy("airflow-worker", pod(labels()))
    airflow.newborn()
    return airflow


@pytest.fixture
def airflow(installed: Airflow) -> Airflow:
    """Returns the same with the policy as it was at first."""
    installed.policy()
    return installed


def test_a_worker_is_born_with_slots_and_the_memory_that_carries_them(airflow: Airflow) -> None:
    airflow.decide(entry(env=SLOTS))
    born = airflow.newborn()
    assert is_tuned(born)
    assert environment(born) == [*SLOTS, POOL]
    assert born["metadata"]["annotations"][ORIGINAL_ENVIRONMENT] == f"{AUTOSCALE}= {CONCURRENCY}="
    for other in ("log-groomer", "wait-for-airflow-migrations", "native-sidecar"):
        assert environment(born, other) == []


def test_the_templates_own_value_is_replaced(airflow: Airflow) -> None:
    stated = variables(**{CONCURRENCY: "4"})
    airflow.decide(entry(env=SLOTS, baseline=with_template(*stated)))
    born = airflow.trial(pod(labels(), env=stated))
    assert is_tuned(born)
    assert environment(born) == [*SLOTS, POOL]
    assert born["metadata"]["annotations"][ORIGINAL_ENVIRONMENT] == f"{AUTOSCALE}= {CONCURRENCY}=4"


def test_an_empty_value_in_the_template_is_a_value(airflow: Airflow) -> None:
    empty = {"name": CONCURRENCY}
    airflow.decide(entry(env=SLOTS, baseline=with_template(empty)))
    assert environment(airflow.trial(pod(labels(), env=[{**empty, "value": ""}]))) == [*SLOTS, POOL]


def test_what_the_entry_does_not_name_stays(airflow: Airflow) -> None:
    stated = variables(**{CONCURRENCY: "4", INTERVAL: "30"})
    airflow.decide(entry(baseline=with_template(*stated)))
    born = airflow.trial(pod(labels(), env=stated))
    assert is_tuned(born)
    assert environment(born) == [*stated, POOL]
    assert ORIGINAL_ENVIRONMENT not in born["metadata"]["annotations"]


@pytest.mark.parametrize(("interval", "processes"), [(INTERVAL, PROCESSES), (INTERVAL_2, PROCESSES_2)])
def test_a_dag_processor_is_born_with_its_interval_and_processes(
    interval: str, processes: str, airflow: Airflow
) -> None:
    wanted, stated = variables(**{interval: "120", processes: "4"}), variables(**{interval: "30"})
    airflow.decide(entry(**PARSER, env=wanted, baseline=with_template(*stated)))
    born = airflow.trial(parser(*stated))
    assert resources(born, "dag-processor") == TUNED
    assert environment(born, "dag-processor") == [*wanted, POOL]
    assert born["metadata"]["annotations"][ORIGINAL_ENVIRONMENT] == f"{interval}=30 {processes}="


@pytest.mark.parametrize(
    "env",
    [
        {CONCURRENCY: "17"},
        {CONCURRENCY: "1"},
        {CONCURRENCY: "0"},
        {CONCURRENCY: "999999"},
        {CONCURRENCY: "8,8"},
        {AUTOSCALE: "8"},
        {AUTOSCALE: "8,4"},
        {AUTOSCALE: "4,8"},
        {AUTOSCALE: "8,08"},
        {AUTOSCALE: "17,17"},
        {AUTOSCALE: "1,1"},
        {CONCURRENCY: "8", AUTOSCALE: "17,17"},
        {CONCURRENCY: "8", INTERVAL: "30"},
        {INTERVAL: "30"},
        {INTERVAL_2: "30"},
        {PROCESSES: "2"},
        {PROCESSES_2: "2"},
    ],
    ids=json.dumps,
)
def test_a_workers_environment_outside_of_the_contract_changes_nothing(env: dict[str, str], airflow: Airflow) -> None:
    airflow.decide(entry(env=variables(**env)))
    born = airflow.trial(pod(labels()))
    assert is_untouched(born)
    assert environment(born) == [POOL]


@pytest.mark.parametrize(
    "env",
    [
        {INTERVAL: "14"},
        {INTERVAL: "601"},
        {INTERVAL_2: "601"},
        {INTERVAL: "30,30"},
        {PROCESSES: "0"},
        {PROCESSES: "5"},
        {PROCESSES_2: "5"},
        {PROCESSES: "2,2"},
        {INTERVAL: "120", PROCESSES: "5"},
        {CONCURRENCY: "8"},
        {AUTOSCALE: "8,8"},
    ],
    ids=json.dumps,
)
def test_a_dag_processors_environment_outside_of_the_contract_changes_nothing(
    env: dict[str, str], airflow: Airflow
) -> None:
    airflow.decide(entry(**PARSER, env=variables(**env)))
    born = airflow.trial(parser())
    assert is_untouched(born, container="dag-processor")
    assert environment(born, "dag-processor") == [POOL]


def test_the_bounds_themselves_are_inside(airflow: Airflow) -> None:
    for slots in ("2", "16"):
        airflow.decide(entry(env=variables(**{CONCURRENCY: slots, AUTOSCALE: f"{slots},{slots}"})))
        assert is_tuned(airflow.trial(pod(labels())))
    for interval, processes in (("15", "1"), ("600", "4")):
        airflow.decide(entry(**PARSER, env=variables(**{INTERVAL: interval, PROCESSES: processes})))
        assert resources(airflow.trial(parser()), "dag-processor") == TUNED


@pytest.mark.parametrize("component", ["scheduler", "api-server"])
def test_a_component_without_such_options_gets_none(component: str, airflow: Airflow) -> None:
    bounds = {"scheduler": "scheduler", "api-server": "apiServer"}[component]
    parts = {"component": component, "bounds": bounds, "container": component, "podLabels": labels(component)}
    # By another owner than the witness.
    parts |= {"target": f"{component}/two", "workload": f"Deployment/airflow-{component}-two"}
    for env in ({CONCURRENCY: "8"}, {INTERVAL: "120"}):
        airflow.decide(entry(**parts, env=variables(**env)))
        born = airflow.trial(pod(labels(component), container=component, owner=f"airflow-{component}-two"))
        assert is_untouched(born, container=component)


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ([{"name": "LD_PRELOAD", "value": "1"}], "Unsupported value"),
        ([{"name": "AIRFLOW__CORE__PARALLELISM", "value": "64"}], "Unsupported value"),
        ([{"name": CONCURRENCY, "value": "-8"}], "should match"),
        ([{"name": CONCURRENCY, "value": ""}], "should match"),
        ([{"name": CONCURRENCY, "value": "8;id"}], "should match"),
        ([{"name": CONCURRENCY, "value": "$(OTHER)"}], "should match"),
        ([{"name": CONCURRENCY, "value": "1000000"}], "should match"),
        ([{"name": AUTOSCALE, "value": "8,8,8"}], "should match"),
        ([{"name": CONCURRENCY}], "Required value"),
        ([{"name": CONCURRENCY, "value": "8"}, {"name": CONCURRENCY, "value": "9"}], "Duplicate value"),
    ],
    ids=json.dumps,
)
def test_another_variable_or_value_is_not_even_written(env: list[Object], told: str, airflow: Airflow) -> None:
    with pytest.raises(CommandFailed, match=told):
        airflow.write(entry(env=env))


def test_a_reference_in_the_status_is_dropped_by_the_schema(airflow: Airflow) -> None:
    airflow.decide(entry(env=[{**SLOTS[1], **by_reference(CONCURRENCY)}]))
    assert "valueFrom" not in airflow.kubectl("get", "tuningpolicy", "airflow", "--output=json")
    assert environment(airflow.trial(pod(labels()))) == [SLOTS[1], POOL]


def test_slots_need_bounds_in_the_spec(airflow: Airflow) -> None:
    airflow.policy(workers=[{"name": "default", "memory": {"min": "512Mi", "max": "4Gi"}}])
    airflow.decide(entry(env=SLOTS))
    assert is_untouched(airflow.trial(pod(labels())))
    airflow.decide(entry())
    assert is_tuned(airflow.trial(pod(labels())))


def test_another_groups_bounds_do_not_stand_in(airflow: Airflow) -> None:
    memory = {"min": "512Mi", "max": "4Gi"}
    heavy = {"name": "heavy", "memory": memory, "concurrency": {"min": 2, "max": 16}}
    airflow.policy(workers=[heavy, {"name": "default", "memory": memory, "concurrency": {"min": 2, "max": 4}}])
    airflow.decide(entry(env=SLOTS))
    assert is_untouched(airflow.trial(pod(labels())))


@pytest.mark.parametrize(
    ("parsing", "env"),
    [
        (None, {INTERVAL: "120"}),
        (None, {PROCESSES: "2"}),
        ({"intervalSeconds": {"min": 15, "max": 600}}, {INTERVAL: "120", PROCESSES: "2"}),
    ],
    ids=json.dumps,
)
def test_parsing_needs_bounds_in_the_spec(parsing: Object | None, env: dict[str, str], airflow: Airflow) -> None:
    bounds: Object = {"memory": {"min": "256Mi", "max": "2Gi"}}
    airflow.policy(dagProcessor=bounds if parsing is None else {**bounds, "parsing": parsing})
    airflow.decide(entry(**PARSER, env=variables(**env)))
    assert is_untouched(airflow.trial(parser()), container="dag-processor")


@pytest.mark.parametrize(
    ("template", "own"),
    [
        (variables(**{CONCURRENCY: "4"}), variables(**{CONCURRENCY: "6"})),
        (variables(**{CONCURRENCY: "4"}), [{"name": CONCURRENCY}]),
        ([], variables(**{CONCURRENCY: "4"})),
        ([], variables(**{AUTOSCALE: "4,1"})),
        (variables(**{CONCURRENCY: "4"}), variables(**{CONCURRENCY: "4", AUTOSCALE: "4,1"})),
        (variables(**{CONCURRENCY: "4"}), []),
        (variables(**{CONCURRENCY: "4"}), [by_reference(CONCURRENCY)]),
        ([], variables(**{INTERVAL: "30"})),
    ],
    ids=["changed", "emptied", "added", "the other added", "the other added too", "removed", "referenced", "any added"],
)
def test_whoever_changes_the_environment_wins(template: list[Object], own: list[Object], airflow: Airflow) -> None:
    airflow.decide(entry(env=SLOTS, baseline=with_template(*template)))
    born = airflow.trial(pod(labels(), env=own))
    assert is_untouched(born)
    assert environment(born) == [*own, POOL]
    assert environment(airflow.trial(pod(labels(), env=template))) == [*SLOTS, POOL]


@pytest.mark.parametrize("name", [CONCURRENCY, AUTOSCALE])
def test_slots_set_by_reference_are_left_alone_and_memory_is_tuned(name: str, airflow: Airflow) -> None:
    airflow.decide(entry(env=SLOTS))
    born = airflow.trial(pod(labels(), env=[by_reference(name)]))
    assert is_tuned(born)
    assert environment(born) == [by_reference(name), POOL], "autoscale would win over the user's concurrency"


def test_a_parsing_option_set_by_reference_is_left_alone_and_the_other_is_set(airflow: Airflow) -> None:
    airflow.decide(entry(**PARSER, env=variables(**{INTERVAL: "120", PROCESSES: "4"})))
    born = airflow.trial(parser(by_reference(INTERVAL)))
    assert resources(born, "dag-processor") == TUNED
    assert environment(born, "dag-processor") == [by_reference(INTERVAL), *variables(**{PROCESSES: "4"}), POOL]


def test_two_entries_for_one_pod_change_nothing(airflow: Airflow) -> None:
    airflow.decide(entry(env=SLOTS), entry(target="worker/heavy", env=variables(**{CONCURRENCY: "4"})))
    born = airflow.trial(pod(labels()))
    assert is_untouched(born)
    assert environment(born) == [POOL]


def test_lower_bounds_of_slots_count_at_once(airflow: Airflow) -> None:
    airflow.decide(entry(env=SLOTS))
    memory = {"min": "512Mi", "max": "4Gi"}
    airflow.policy(workers=[{"name": "default", "memory": memory, "concurrency": {"min": 2, "max": 4}}])
    eventually(lambda: is_untouched(airflow.trial(pod(labels()))), "the new bounds to count")
    assert environment(airflow.newborn()) == [POOL]


def test_the_mode_recommend_releases_the_environment(airflow: Airflow) -> None:
    airflow.decide(entry(env=SLOTS))
    airflow.policy(mode="Recommend")
    eventually(lambda: is_untouched(airflow.trial(pod(labels()))), "the mode to count")
    assert environment(airflow.newborn()) == [POOL]


def test_a_variable_that_is_there_twice_costs_no_pod_its_birth(airflow: Airflow) -> None:
    airflow.decide(entry(env=SLOTS))
    twice = [{"name": "PATH_OF_DAGS", "value": "a"}, {"name": "PATH_OF_DAGS", "value": "b"}]
    born = airflow.trial(pod(labels(), env=twice))
    assert born["metadata"]["annotations"].get(DECISION)
    assert [item["value"] for item in environment(born) if item["name"] == "PATH_OF_DAGS"] == ["a", "b"]


def test_an_option_that_is_there_twice_costs_no_pod_its_birth(airflow: Airflow) -> None:
    twice = [*variables(**{CONCURRENCY: "4"}), *variables(**{CONCURRENCY: "6"})]
    airflow.decide(entry(env=SLOTS, baseline=with_template(twice[1])))
    born = airflow.trial(pod(labels(), env=twice))
    assert {item["value"] for item in environment(born) if item["name"] == CONCURRENCY} <= {"4", "6", "8"}


def test_a_deleted_policy_releases_the_environment(airflow: Airflow) -> None:
    airflow.decide(entry(env=SLOTS))
    airflow.delete_policy()
    eventually(lambda: is_untouched(airflow.trial(pod(labels()))), "the deletion to count")
    assert environment(airflow.newborn()) == [POOL]

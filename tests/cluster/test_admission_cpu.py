"""New pods get the CPU that a status names, within the spec's bounds and never a limit that the template has not.

Statuses are written by hand, good ones and hostile ones; no operator runs.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cluster.admission import (
    ORIGINAL,
    TEMPLATE,
    Airflow,
    Object,
    airflow_with_policy,
    entry,
    eventually,
    is_tuned,
    is_untouched,
    labels,
    plane_with_chart,
    pod,
    resources,
)
from testbed.controlplane import ControlPlane

ORIGINAL_CPU = ORIGINAL.replace("memory", "cpu")
WORKERS = [{"name": "default", "memory": {"min": "512Mi", "max": "4Gi"}, "cpu": {"min": "250m", "max": 2}}]


def decided(request: Any = "650m", limit: Any = "1300m", **changes: Any) -> Object:  # noqa: ANN401 - as a status may have it
    """Returns the honest entry with this CPU in it; `None` leaves one out."""
    sizes = {"requests": {"memory": "768Mi"}, "limits": {"memory": "1536Mi"}}
    for kind, size in (("requests", request), ("limits", limit)):
        if size is not None:
            sizes[kind]["cpu"] = size
    return entry(**{**sizes, **changes})


@pytest.fixture(scope="module")
def plane(needs: Callable[..., None]) -> Iterator[ControlPlane]:
    """Runs a control plane with the chart."""
    needs("control-plane", "helm")
    with plane_with_chart("admission-cpu") as running:
        yield running


@pytest.fixture(scope="module")
def installed(plane: ControlPlane) -> Airflow:
    """Returns the namespace `airflow` with its worker."""
    return airflow_with_policy(plane)


@pytest.fixture
def airflow(installed: Airflow) -> Airflow:
    """Returns the same with a policy that names the worker's CPU."""
    installed.policy(workers=WORKERS)
    return installed


def test_a_pod_is_born_with_the_cpu_that_was_decided(airflow: Airflow) -> None:
    airflow.decide(decided())
    born = airflow.trial(pod(labels()))
    wanted = {"requests": {"cpu": "650m", "memory": "768Mi"}, "limits": {"cpu": "1300m", "memory": "1536Mi"}}
    assert resources(born) == wanted
    assert resources(born, "wait-for-airflow-migrations") == wanted, "it repeats the container's resources"
    assert resources(born, "native-sidecar") == TEMPLATE
    assert born["metadata"]["annotations"][ORIGINAL_CPU] == "request=500m,limit=1"


def test_an_entry_without_cpu_leaves_it_as_the_template_says(airflow: Airflow) -> None:
    airflow.decide(entry())
    born = airflow.trial(pod(labels()))
    assert is_tuned(born)
    assert ORIGINAL_CPU not in born["metadata"]["annotations"]


@pytest.mark.parametrize(
    ("request_", "limit"),
    [
        ("249m", "1"),
        ("650m", "2001m"),
        ("1400m", "1300m"),
        (3, 3),
        (0, 1),
        ("650m", None),
        (None, "1300m"),
    ],
)
def test_cpu_outside_of_the_contract_changes_nothing(request_: object, limit: object, airflow: Airflow) -> None:
    airflow.decide(decided(request_, limit))
    assert is_untouched(airflow.trial(pod(labels())))


def test_no_limit_is_added_where_the_template_has_none(airflow: Airflow) -> None:
    template = {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"memory": "1Gi"}}
    airflow.decide(decided(baseline=template))
    assert is_untouched(airflow.trial(pod(labels(), template)), template)
    airflow.decide(decided(limit=None, baseline=template))
    born = airflow.trial(pod(labels(), template))
    assert resources(born) == {"requests": {"cpu": "650m", "memory": "768Mi"}, "limits": {"memory": "1536Mi"}}
    airflow.decide(decided("2001m", None, baseline=template))
    assert is_untouched(airflow.trial(pod(labels(), template)), template)


def test_a_container_without_any_cpu_gets_its_first_request(airflow: Airflow) -> None:
    template = {"requests": {"memory": "512Mi"}, "limits": {"memory": "1Gi"}}
    airflow.decide(decided(limit=None, baseline=template))
    born = airflow.trial(pod(labels(), template))
    assert resources(born) == {"requests": {"cpu": "650m", "memory": "768Mi"}, "limits": {"memory": "1536Mi"}}
    assert born["metadata"]["annotations"][ORIGINAL_CPU] == "request=none,limit=none"


def test_bounds_that_a_policy_does_not_name_are_none(airflow: Airflow) -> None:
    airflow.policy()
    airflow.decide(decided())
    assert is_untouched(airflow.trial(pod(labels())))


def test_lower_bounds_of_cpu_count_at_once(airflow: Airflow) -> None:
    airflow.decide(decided())
    assert not is_untouched(airflow.trial(pod(labels())))
    airflow.policy(workers=[{**WORKERS[0], "cpu": {"min": "250m", "max": "1200m"}}])
    eventually(lambda: is_untouched(airflow.trial(pod(labels()))), "the new bounds to count")


def test_whoever_changes_the_templates_cpu_wins(airflow: Airflow) -> None:
    airflow.decide(decided())
    more = {"requests": {"cpu": "600m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
    assert is_untouched(airflow.trial(pod(labels(), more)), more)


def test_the_webservers_cpu_has_the_api_servers_bounds(airflow: Airflow) -> None:
    own = {"memory": {"min": "512Mi", "max": "4Gi"}, "cpu": {"min": "250m", "max": "1500m"}}
    airflow.policy(workers=WORKERS, apiServer=own)
    for component in ("api-server", "webserver"):
        mine = {"bounds": "apiServer", "component": component, "container": component, "podLabels": labels(component)}
        of = {**mine, "target": component, "workload": f"Deployment/airflow-{component}"}
        airflow.decide(decided(**of))
        born = airflow.trial(pod(labels(component), container=component))
        assert json.dumps(resources(born, component)["requests"]["cpu"]) == '"650m"'
        airflow.decide(decided("650m", "1600m", **of))
        assert is_untouched(airflow.trial(pod(labels(component), container=component)), container=component)

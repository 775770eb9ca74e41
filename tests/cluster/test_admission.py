"""The API server itself shapes new pods, and holds the contract of it: the chart is installed, no operator runs.

Statuses are written by hand, good ones and hostile ones. The environment has a room of its own.
"""

import json
import time
from collections.abc import Callable, Iterator

import pytest

from cluster.admission import (
    CHART,
    DECISION,
    ORIGINAL,
    OWN_SIZES,
    POLICY,
    TEMPLATE,
    TUNED,
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
from testbed.commands import CommandFailed
from testbed.controlplane import ControlPlane
from testbed.helm import helm


@pytest.fixture(scope="module")
def plane(needs: Callable[..., None]) -> Iterator[ControlPlane]:
    """Runs a control plane with the chart."""
    needs("control-plane", "helm")
    with plane_with_chart("admission") as running:
        yield running


@pytest.fixture(scope="module")
def installed(plane: ControlPlane) -> Airflow:
    """Returns the namespace `airflow` with the workers of two releases."""
    airflow = airflow_with_policy(plane)
    airflow.deploy("airflow-worker", pod(labels()))
    airflow.deploy("other-worker", pod(labels(release="other")))
    airflow.newborn()
    airflow.newborn(release="other")
    return airflow


@pytest.fixture
def airflow(installed: Airflow) -> Airflow:
    """Returns the same with the policy as it was at first."""
    installed.policy()
    return installed


def test_a_pod_is_born_tuned(airflow: Airflow) -> None:
    airflow.decide(entry())
    born = airflow.newborn()
    assert resources(born) == TUNED
    assert resources(born, "wait-for-airflow-migrations") == TUNED
    assert born["metadata"]["annotations"] == {
        "checksum/airflow-config": "1",
        POLICY: "airflow",
        DECISION: "worker-default-0000",
        ORIGINAL: "request=512Mi,limit=1Gi",
    }


def test_all_else_in_a_tuned_pod_is_as_the_template_says(airflow: Airflow) -> None:
    airflow.decide(entry())
    born = airflow.trial(pod(labels()))
    assert is_tuned(born)
    assert resources(born, "native-sidecar") == TEMPLATE
    assert {name: resources(born, name) for name in OWN_SIZES} == OWN_SIZES
    for name in ("log-groomer", "git-sync-init"):
        assert resources(born, name) == {"limits": {"memory": "64Mi"}, "requests": {"memory": "64Mi"}}
    assert born["spec"]["containers"][0]["env"] == [{"name": "POOL", "value": "4"}]
    assert [item["name"] for item in born["spec"]["containers"]] == ["worker", "log-groomer"]


@pytest.mark.parametrize(
    "changes",
    [
        {"limits": {"memory": "4097Mi"}},
        {"limits": {"memory": 4294967297}},
        {"requests": {"memory": "511Mi"}},
        {"requests": {"memory": "8Gi"}, "limits": {"memory": "8Gi"}},
        {"requests": {"memory": "1537Mi"}},
        {"requests": {"memory": 0}, "limits": {"memory": 0}},
        {"requests": {"memory": -1}},
        {"bounds": "scheduler", "limits": {"memory": "8Gi"}},
        {"bounds": "scheduler", "component": "scheduler", "limits": {"memory": "8Gi"}},
        {"bounds": "apiServer"},
        {"bounds": "triggerer"},
        {"bounds": "workers/heavy"},
        {"bounds": "workers/*"},
        {"container": "base"},
        {"workload": "Deployment/airflow-worker-heavy"},
        {"workload": "Deployment/airflow"},
        {"workload": "StatefulSet/airflow-worker"},
        {"podLabels": {"component": "worker", "queue": "heavy"}},
        {"podLabels": {"release": "other"}},
        {"baseline": {}},
        {"baseline": {**TEMPLATE, "limits": {"memory": "1Gi"}}},
        {"baseline": {**TEMPLATE, "limits": {"cpu": "1", "memory": "rubbish"}}},
    ],
    ids=json.dumps,
)
def test_an_entry_outside_of_the_contract_changes_nothing(changes: Object, airflow: Airflow) -> None:
    airflow.decide(entry(**changes))
    assert is_untouched(airflow.trial(pod(labels())))


def test_a_hostile_status_changes_nothing_of_a_pod_that_a_replica_set_makes(airflow: Airflow) -> None:
    airflow.decide(entry(requests={"memory": "64Gi"}, limits={"memory": "64Gi"}))
    assert is_untouched(airflow.newborn())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"podLabels": {}}, "should have at least 1 properties"),
        ({"limits": {"memory": "lots"}}, "should match"),
        ({"limits": {"memory": "-1Gi"}}, "should match"),
        ({"limits": {}}, "Required value"),
        ({"decision": ""}, "should be at least 1 chars long"),
    ],
    ids=json.dumps,
)
def test_an_entry_of_the_wrong_form_is_not_even_written(changes: Object, told: str, airflow: Airflow) -> None:
    with pytest.raises(CommandFailed, match=told):
        airflow.write(entry(**changes))


def test_what_the_schema_does_not_know_is_dropped(airflow: Airflow) -> None:
    airflow.decide(entry(image="evil", command=["evil"]))
    assert "evil" not in airflow.kubectl("get", "tuningpolicy", "airflow", "--output=json")
    born = airflow.newborn()
    assert is_tuned(born)
    assert born["spec"]["containers"][0]["image"] == "airflow:none"


def test_the_pods_of_another_release_are_left_alone(airflow: Airflow) -> None:
    airflow.decide(entry(podLabels={"component": "worker"}))
    assert is_tuned(airflow.newborn())
    assert is_untouched(airflow.newborn(release="other"))


def test_a_pod_that_bears_the_releases_name_alone_is_left_alone(airflow: Airflow) -> None:
    airflow.decide(entry(podLabels={"component": "worker"}))
    assert is_untouched(airflow.trial(pod({"component": "worker", "release": "airflow"})))
    assert is_untouched(airflow.trial(pod({"component": "worker", "tier": "airflow"})))
    assert is_tuned(airflow.trial(pod(labels())))


def test_a_policy_reaches_no_other_namespace(airflow: Airflow, plane: ControlPlane) -> None:
    airflow.decide(entry())
    for namespace in ("default", "operators", "kube-system"):
        assert is_untouched(Airflow(plane, namespace).trial(pod(labels())))
    assert is_tuned(airflow.trial(pod(labels())))


def test_a_policy_in_the_operators_own_namespace_is_not_heard(airflow: Airflow, plane: ControlPlane) -> None:
    airflow.decide(entry())
    here = Airflow(plane, "operators")
    here.policy()
    here.write(entry())
    time.sleep(1)  # longer than any status took to be heard elsewhere
    assert is_untouched(here.trial(pod(labels())))
    here.delete_policy()


def test_whoever_changes_the_template_wins(airflow: Airflow) -> None:
    airflow.decide(entry())
    changed = {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "1200Mi"}}
    airflow.deploy("airflow-worker", pod(labels(), changed))

    def renewed() -> Object | None:
        pods = json.loads(airflow.kubectl("get", "pods", "--selector=release=airflow", "--output=json"))["items"]
        return next((item for item in pods if "1200Mi" in json.dumps(item["spec"])), None)

    try:
        assert is_untouched(eventually(renewed, "a pod of the new template"), changed)
    finally:
        airflow.deploy("airflow-worker", pod(labels()))
    assert is_tuned(airflow.trial(pod(labels())))


def test_a_cpu_change_in_the_template_wins_as_well(airflow: Airflow) -> None:
    airflow.decide(entry())
    more = {"requests": {"cpu": "600m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
    assert is_untouched(airflow.trial(pod(labels(), more)), more)


def test_lower_bounds_in_the_spec_count_at_once(airflow: Airflow) -> None:
    airflow.decide(entry())
    airflow.policy(workers=[{"name": "default", "memory": {"min": "512Mi", "max": "1Gi"}}])
    eventually(lambda: is_untouched(airflow.trial(pod(labels()))), "the new bounds to count")


def test_the_mode_recommend_releases(airflow: Airflow) -> None:
    airflow.decide(entry())
    airflow.policy(mode="Recommend")
    eventually(lambda: is_untouched(airflow.trial(pod(labels()))), "the mode to count")
    assert is_untouched(airflow.newborn())


def test_a_deleted_policy_releases_even_while_something_holds_it(airflow: Airflow) -> None:
    airflow.decide(entry())
    hold = {"metadata": {"finalizers": ["example.org/hold"]}}
    airflow.kubectl("patch", "tuningpolicy", "airflow", "--type=merge", f"--patch={json.dumps(hold)}")
    try:
        airflow.delete_policy()
        eventually(lambda: is_untouched(airflow.trial(pod(labels()))), "the deletion to count")
        assert is_untouched(airflow.newborn())
    finally:
        free: Object = {"metadata": {"finalizers": []}}
        airflow.kubectl("patch", "tuningpolicy", "airflow", "--type=merge", f"--patch={json.dumps(free)}")
    eventually(lambda: not airflow.kubectl("get", "tuningpolicies", "--output=name"), "the policy to be gone")
    assert is_untouched(airflow.newborn())


def test_a_request_that_the_api_server_takes_from_the_limit_belongs_to_the_baseline(airflow: Airflow) -> None:
    limits = {"cpu": "1", "memory": "1Gi"}
    airflow.decide(entry(baseline={"requests": limits, "limits": limits}, requests={"memory": "1536Mi"}))
    born = airflow.trial(pod(labels(), {"limits": limits}))
    assert resources(born) == {kind: {"cpu": "1", "memory": "1536Mi"} for kind in ("requests", "limits")}
    assert resources(born, "wait-for-airflow-migrations") == resources(born)
    assert born["metadata"]["annotations"][ORIGINAL] == "request=1Gi,limit=1Gi"


@pytest.mark.parametrize("baseline", [{}, {"requests": {}, "limits": {}}], ids=json.dumps)
def test_a_container_without_any_resources_gets_its_first(baseline: Object, airflow: Airflow) -> None:
    airflow.decide(entry(baseline=baseline))
    born = airflow.trial(pod(labels(), {}))
    assert resources(born) == {"requests": {"memory": "768Mi"}, "limits": {"memory": "1536Mi"}}
    assert born["metadata"]["annotations"][ORIGINAL] == "request=none,limit=none"


def test_a_pod_without_annotations_or_init_containers_is_tuned(airflow: Airflow) -> None:
    airflow.decide(entry())
    bare = pod(labels())
    del bare["metadata"]["annotations"], bare["spec"]["initContainers"]
    assert is_tuned(airflow.trial(bare))


def test_pods_whose_resources_are_set_as_a_whole_are_left_alone(airflow: Airflow) -> None:
    airflow.decide(entry())
    whole = pod(labels())
    whole["spec"]["resources"] = {"limits": {"cpu": "2", "memory": "2Gi"}}
    assert is_untouched(airflow.trial(whole))


def test_defaults_of_a_limit_range_make_a_container_differ_from_its_template(airflow: Airflow) -> None:
    airflow.decide(entry(baseline={}))
    limit = {"type": "Container", "default": {"memory": "2Gi"}, "defaultRequest": {"memory": "2Gi"}}
    body = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "sizes"}, "spec": {"limits": [limit]}}
    airflow.kubectl("create", "--filename=-", body=body)
    filled = {"limits": {"memory": "2Gi"}, "requests": {"memory": "2Gi"}}
    try:
        eventually(lambda: is_untouched(airflow.trial(pod(labels(), {})), filled), "the LimitRange to count")
        airflow.decide(entry(baseline=filled))
        born = airflow.trial(pod(labels(), {}))
        assert resources(born) == {"requests": {"memory": "768Mi"}, "limits": {"memory": "1536Mi"}}
    finally:
        airflow.kubectl("delete", "limitrange", "sizes")


def test_an_airflow_of_another_chart_is_found_by_its_labels(airflow: Airflow) -> None:
    other = {"app.kubernetes.io/component": "worker", "team": "data"}
    airflow.policy(airflow={"selector": {"matchLabels": {"team": "data"}}}, scheduler=None)
    airflow.write(entry(podLabels={"app.kubernetes.io/component": "worker"}))
    eventually(lambda: is_tuned(airflow.trial(pod(other, owner="airflow-worker"))), "the selector to count")
    assert is_untouched(airflow.trial(pod(labels())))
    assert is_untouched(airflow.trial(pod({**other, "team": "web"}, owner="airflow-worker")))


@pytest.mark.parametrize("component", ["api-server", "webserver"])
def test_the_api_servers_bounds_are_for_both_airflow_lines(component: str, airflow: Airflow) -> None:
    parts = {"target": component, "component": component, "bounds": "apiServer", "container": component}
    airflow.decide(entry(**parts, workload=f"Deployment/airflow-{component}", podLabels=labels(component)))
    born = airflow.trial(pod(labels(component), container=component))
    assert resources(born, component) == TUNED


def test_workers_that_share_every_label_are_told_apart_by_their_owner(airflow: Airflow) -> None:
    name = "airflow-worker-heavy"
    heavy = {"target": "worker/heavy", "workload": f"Deployment/{name}", "limits": {"memory": "2Gi"}}
    airflow.decide(entry(), entry(**heavy))
    assert resources(airflow.trial(pod(labels(), owner=name)))["limits"]["memory"] == "2Gi"
    assert is_tuned(airflow.trial(pod(labels())))
    airflow.decide(entry())
    assert is_untouched(airflow.trial(pod(labels(), owner=name))), "another workload's entry must not stand in"


def test_two_entries_for_the_same_pods_change_nothing(airflow: Airflow) -> None:
    airflow.decide(entry(), entry(target="worker/heavy", limits={"memory": "2Gi"}))
    assert is_untouched(airflow.trial(pod(labels())))


def test_the_fullest_status_there_can_be_costs_no_pod_its_birth(airflow: Airflow) -> None:
    many = {**labels(), **{f"a-label-with-a-long-name-{number}": "x" * 63 for number in range(13)}}
    fewer = dict(list(many.items())[:15])
    bounds = {"memory": {"min": "512Mi", "max": "4Gi"}, "concurrency": {"min": 1, "max": 1024}}
    airflow.policy(
        workers=[{"name": f"set-{number}", **bounds} for number in range(63)] + [{"name": "default", **bounds}]
    )
    names = [f"AIRFLOW__{name}" for name in ("CELERY__WORKER_CONCURRENCY", "CELERY__WORKER_AUTOSCALE")]
    names += [f"AIRFLOW__DAG_PROCESSOR__{name}" for name in ("MIN_FILE_PROCESS_INTERVAL", "PARSING_PROCESSES")]
    names += [f"AIRFLOW__SCHEDULER__{name}" for name in ("MIN_FILE_PROCESS_INTERVAL", "PARSING_PROCESSES")]
    stated = [{"name": name, "value": "x" * 256} for name in names]
    full = entry(
        env=[{"name": names[0], "value": "000008"}, {"name": names[1], "value": "000008,000008"}],
        baseline={**TEMPLATE, "env": stated},
        podLabels=many,
    )
    others = [{"name": f"VARIABLE_{number}", "value": "x"} for number in range(200)]
    airflow.decide(*({**full, "target": f"worker/set-{number}", "podLabels": fewer} for number in range(78)), full)
    started = time.monotonic()
    assert is_tuned(airflow.trial(pod(many, env=[*others, *stated])))
    assert time.monotonic() - started < 2


def test_rubbish_from_an_older_definition_blocks_no_pod_unless_told_to(plane: ControlPlane, airflow: Airflow) -> None:
    """The last test: it takes the schema off the status, so that anything can be written there."""
    where = "/spec/versions/0/schema/openAPIV3Schema/properties/status"
    loose = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    patch = json.dumps([{"op": "replace", "path": where, "value": loose}])
    plane.kubectl("patch", "crd", "tuningpolicies.airflow-tuner.dev", "--type=json", f"--patch={patch}")

    def refused() -> bool:
        try:
            airflow.write({"component": "worker", "podLabels": 7, "limits": "lots"})
            airflow.trial(pod(labels()))
        except CommandFailed as error:
            return "no such overload" in str(error) or "denied" in str(error)
        return False

    eventually(refused, "the rubbish to be met, with failurePolicy Fail")
    helm(plane, "upgrade", "tuner", CHART, "--namespace=operators", "--set=crds.enabled=false")

    def started() -> bool:
        try:
            return is_untouched(airflow.trial(pod(labels())))
        except CommandFailed:
            return False

    eventually(started, "pods to be created again, with failurePolicy Ignore")
    assert is_untouched(airflow.newborn())

"""Kubernetes objects as the official chart and others make them, read as workloads and pods."""

from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_tuner import inventory
from airflow_tuner.model import Death, Eviction, Memory, Pod, Workload

Object = dict[str, Any]
MI = 2**20
LABELS = {"tier": "airflow", "release": "airflow"}
KILLED = {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-11-24T12:00:00Z"}
AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
RESOURCES = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "1Gi"}}


def workload(
    name: str,
    component: str,
    *containers: str,
    kind: str = "Deployment",
    resources: Object | None = None,
    labels: Object | None = None,
    selector: Object | None = None,
) -> Object:
    """A workload as the API server has it."""
    labels = labels or {**LABELS, "component": component}
    made = [{"name": one, "resources": RESOURCES if resources is None else resources} for one in containers]
    return {
        "kind": kind,
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "selector": {"matchLabels": selector or labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": made}},
        },
    }


def pod(
    name: str,
    owner: str,
    kind: str = "StatefulSet",
    container: str = "worker",
    **parts: Any,  # noqa: ANN401 - of a pod
) -> Object:
    """A pod of a workload; `parts` go into its metadata, its status or its container's status."""
    labels = {**LABELS, "component": container}
    if kind == "ReplicaSet":
        labels["pod-template-hash"] = owner.rpartition("-")[2]
    state = {"name": container, "restartCount": 0, "state": {"running": {}}, **parts.pop("state", {})}
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-of-{name}",
            "creationTimestamp": "2026-11-24T10:00:00Z",
            "labels": labels,
            "ownerReferences": [
                {"kind": "Node", "name": "not-the-controller"},
                {"kind": kind, "name": owner, "controller": True},
            ],
            **parts.pop("metadata", {}),
        },
        "spec": {
            "containers": [
                {"name": "sidecar"},
                {"name": container, "resources": parts.pop("resources", RESOURCES)},
            ]
        },
        "status": {"phase": "Running", "containerStatuses": [{"name": "sidecar"}, state], **parts},
    }


def read(*objects: Object, pods: tuple[Object, ...] = ()) -> dict[str, Workload]:
    """Workloads by target."""
    found = inventory.workloads(objects, pods)
    assert len({one.target for one in found}) == len(found), "no two have one name"
    return {one.target: one for one in found}


def one_pod(**parts: Any) -> Pod:  # noqa: ANN401 - any part of a pod
    """The only pod of the only worker."""
    return one_of(pod("airflow-worker-0", "airflow-worker", **parts))


def one_of(item: Object) -> Pod:
    """This pod, as the only one of the only worker."""
    (found,) = read(workload("airflow-worker", "worker", "worker", kind="StatefulSet"), pods=(item,)).values()
    return found.pods[0]


def test_the_official_charts_workloads_are_found_in_a_fixed_order() -> None:
    chart = [
        workload("airflow-worker", "worker", "worker", "worker-log-groomer", kind="StatefulSet"),
        workload("airflow-triggerer", "triggerer", "triggerer", "triggerer-log-groomer", kind="StatefulSet"),
        workload("airflow-api-server", "api-server", "api-server"),
        workload("airflow-statsd", "statsd", "statsd"),
        workload("airflow-redis", "redis", "redis", kind="StatefulSet"),
        workload("airflow-dag-processor", "dag-processor", "dag-processor", "dag-processor-log-groomer"),
        workload("airflow-scheduler", "scheduler", "scheduler", "scheduler-log-groomer"),
        {"kind": "Deployment", "metadata": {"name": "bare"}, "spec": {}},
    ]
    found = read(*chart)
    assert list(found) == ["scheduler", "dag-processor", "triggerer", "api-server", "worker/default"]
    assert list(read(*reversed(chart))) == list(found)
    assert [one.container for one in found.values()] == [
        "scheduler",
        "dag-processor",
        "triggerer",
        "api-server",
        "worker",
    ]
    worker = found["worker/default"]
    assert worker.label == "StatefulSet/airflow-worker"
    assert worker.pod_labels == {**LABELS, "component": "worker"}
    assert worker.requests == {"cpu": "100m", "memory": "512Mi"}
    assert worker.limits == {"memory": "1Gi"}
    assert worker.template == Memory(512 * MI, 1024 * MI)
    assert list(read(workload("airflow-webserver", "webserver", "webserver"))) == ["webserver"]


@pytest.mark.parametrize(
    ("name", "release", "target"),
    [
        ("airflow-worker", "airflow", "worker/default"),
        ("airflow-worker-heavy", "airflow", "worker/heavy"),
        ("airflow-worker-heavy-gpu", "airflow", "worker/heavy-gpu"),
        ("airflow-worker-co-worker", "airflow", "worker/co-worker"),
        ("my-worker-worker", "my-worker", "worker/default"),
        ("my-worker-worker-heavy", "my-worker", "worker/heavy"),
        ("prod-airflow-worker", "prod", "worker/default"),
        ("heavy-workers", "airflow", "worker/heavy-workers"),
        ("celery", "airflow", "worker/celery"),
        ("worker", "airflow", "worker/worker"),
    ],
)
def test_a_worker_is_called_by_its_set(name: str, release: str, target: str) -> None:
    labels = {**LABELS, "component": "worker", "release": release}
    assert list(read(workload(name, "worker", "worker", labels=labels))) == [target]


def test_workloads_that_would_share_a_name_are_told_apart() -> None:
    found = read(
        workload("a-worker", "worker", "worker"),
        workload("b-worker", "worker", "worker", kind="StatefulSet"),
        workload("b-worker", "worker", "worker"),
        workload("a-scheduler", "scheduler", "scheduler"),
        workload("b-scheduler", "scheduler", "scheduler"),
    )
    assert {target: one.label for target, one in found.items()} == {
        "scheduler/a-scheduler": "Deployment/a-scheduler",
        "scheduler/b-scheduler": "Deployment/b-scheduler",
        "worker/default": "Deployment/a-worker",
        "worker/b-worker": "StatefulSet/b-worker",
        "worker/b-worker.deployment": "Deployment/b-worker",
    }


def test_pods_belong_to_their_owner_whatever_labels_they_share() -> None:
    sets = ("airflow-worker", "airflow-worker-heavy")
    pods = (
        pod("airflow-worker-0", "airflow-worker"),
        pod("airflow-worker-heavy-0", "airflow-worker-heavy"),
        pod("airflow-worker-heavy-1", "airflow-worker-heavy"),
        pod("x", "airflow-worker-heavy-7d9f", kind="ReplicaSet"),
        pod("y", "airflow-worker", kind="Job"),
        pod("bare", "airflow-worker", metadata={"ownerReferences": []}),
        pod(
            "left", "airflow-worker", metadata={"ownerReferences": [{"kind": "StatefulSet", "name": "airflow-worker"}]}
        ),
    )
    found = read(
        *(workload(name, "worker", "worker", kind="StatefulSet") for name in sets),
        workload("airflow-worker-heavy", "worker", "worker", kind="Deployment"),
        pods=pods,
    )
    assert {one.label: [each.name for each in one.pods] for one in found.values()} == {
        "StatefulSet/airflow-worker": ["airflow-worker-0"],
        "StatefulSet/airflow-worker-heavy": ["airflow-worker-heavy-0", "airflow-worker-heavy-1"],
        "Deployment/airflow-worker-heavy": ["x"],
    }


@pytest.mark.parametrize(
    ("containers", "main"),
    [
        (("worker", "worker-log-groomer"), "worker"),
        (("istio-proxy", "worker"), "worker"),
        (("vault-agent", "airflow-worker"), "airflow-worker"),
        (("celery", "log-groomer"), "celery"),
    ],
)
def test_the_main_container_is_the_one_named_for_the_component(containers: tuple[str, ...], main: str) -> None:
    assert [one.container for one in read(workload("airflow-worker", "worker", *containers)).values()] == [main]


@pytest.mark.parametrize(
    ("resources", "requests", "memory"),
    [
        ({}, {}, Memory(None, None)),
        ({"limits": {"memory": "1Gi"}}, {"memory": "1Gi"}, Memory(1024 * MI, 1024 * MI)),
        ({"limits": {"cpu": 2}, "requests": {"memory": "1Gi"}}, {"cpu": "2", "memory": "1Gi"}, Memory(1024 * MI, None)),
        (
            {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"memory": "512Mi"}},
            {"cpu": "1", "memory": "512Mi"},
            Memory(512 * MI, 1024 * MI),
        ),
        ({"requests": None, "limits": None}, {}, Memory(None, None)),
        ({"limits": {"memory": 536870912}}, {"memory": "536870912"}, Memory(512 * MI, 512 * MI)),
    ],
)
def test_a_missing_request_is_the_limit_as_the_api_server_sets_it(
    resources: Object, requests: Object, memory: Memory
) -> None:
    (found,) = read(workload("airflow-worker", "worker", "worker", resources=resources)).values()
    assert (found.requests, found.template) == (requests, memory)
    assert one_pod(resources=resources).memory == memory


def test_a_kill_has_the_same_number_before_and_after_the_restart() -> None:
    down = one_pod(state={"restartCount": 2, "state": {"terminated": KILLED}})
    put_off = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": KILLED}}
    waiting = one_pod(state={"restartCount": 2, **put_off})
    up = one_pod(state={"restartCount": 3, "state": {"running": {}}, "lastState": {"terminated": KILLED}})
    assert down.death == waiting.death == up.death == Death(3, AT)
    assert [one.deaths for one in (down, waiting, up)] == [2, 2, 3]
    rebooted = {"state": {"waiting": {"reason": "ContainerCreating"}}, "lastState": {"terminated": KILLED}}
    assert one_pod(state={"restartCount": 3, **rebooted}).death == Death(3, AT), "the same one after a node's restart"


def test_a_container_that_ended_otherwise_was_not_killed_for_memory() -> None:
    """Containerd gives the reason to every container in which a process was ever killed, however it ends."""
    ended = {**KILLED, "exitCode": 0}
    assert one_pod(state={"state": {"terminated": ended}}).death is None
    assert one_pod(state={"restartCount": 1, "lastState": {"terminated": ended}}).death is None


def test_a_container_that_dies_because_its_pod_is_deleted_was_not_killed_for_memory() -> None:
    deleted = {"deletionTimestamp": "2026-11-24T12:00:30Z", "deletionGracePeriodSeconds": 30}
    assert one_pod(state={"state": {"terminated": KILLED}}, metadata=deleted).death is None
    later = {"deletionTimestamp": "2026-11-24T12:00:31Z", "deletionGracePeriodSeconds": 30}
    assert one_pod(state={"state": {"terminated": KILLED}}, metadata=later).death == Death(1, AT)


def test_a_kill_is_remembered_until_the_next_death_and_other_deaths_are_none() -> None:
    error = {"exitCode": 1, "reason": "Error", "finishedAt": "2026-11-24T13:00:00Z"}
    again = {"restartCount": 1, "state": {"terminated": error}, "lastState": {"terminated": KILLED}}
    assert one_pod(state=again).death == Death(1, AT)
    assert one_pod(state={"restartCount": 1, "lastState": {"terminated": error}}).death is None
    assert one_pod(state={"restartCount": 0}).death is None
    twice = {"restartCount": 1, "state": {"terminated": KILLED}, "lastState": {"terminated": KILLED}}
    assert one_pod(state=twice).death == Death(2, AT)


def test_a_container_that_a_resize_of_its_memory_would_restart_is_known() -> None:
    policies = [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]
    quiet = pod("airflow-worker-0", "airflow-worker")
    assert not one_of(quiet).restarts_on_resize
    quiet["spec"]["containers"][1]["resizePolicy"] = policies
    assert not one_of(quiet).restarts_on_resize
    policies.append({"resourceName": "memory", "restartPolicy": "RestartContainer"})
    assert one_of(quiet).restarts_on_resize


def test_a_kill_of_a_sidecar_is_not_the_workers() -> None:
    item = pod("airflow-worker-0", "airflow-worker")
    item["status"]["containerStatuses"][0].update({"restartCount": 4, "lastState": {"terminated": KILLED}})
    (found,) = read(workload("airflow-worker", "worker", "worker", kind="StatefulSet"), pods=(item,)).values()
    assert (found.pods[0].death, found.pods[0].deaths) == (None, 0)


def test_what_is_in_force_is_what_the_kubelet_says_of_a_running_container() -> None:
    resized = {"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi"}}
    running = {"state": {"running": {}}, "resources": resized, "containerID": "containerd://abc"}
    assert one_pod(state=running).running == Memory(1024 * MI, 2048 * MI)
    assert one_pod(state=running).container_id == "abc"
    assert one_pod(state=running).memory == Memory(512 * MI, 1024 * MI)
    assert one_pod(state={**running, "state": {"waiting": {}}}).running is None
    assert one_pod(state={**running, "resources": {}}).running == Memory(None, None)
    assert one_pod(state={"state": {"running": {}}}).running is None, "an older kubelet does not say"


def test_a_pod_without_a_status_is_read() -> None:
    item = pod("airflow-worker-0", "airflow-worker")
    for status in ({}, {"phase": "Pending"}, {"containerStatuses": None}):
        item["status"] = status
        (found,) = read(workload("airflow-worker", "worker", "worker", kind="StatefulSet"), pods=(item,)).values()
        one = found.pods[0]
        assert (one.running, one.container_id, one.deaths, one.death, one.ending) == (None, "", 0, None, False)
    del item["status"]
    assert read(workload("airflow-worker", "worker", "worker", kind="StatefulSet"), pods=(item,))


def test_a_pod_that_lacks_the_container_has_nothing_set() -> None:
    assert one_pod(container="other").memory == Memory(None, None)


def hand(container: str, **resources: str) -> Object:
    """What a manager owns of a container's resources."""
    owned: Object = {f"f:{kind}": {f"f:{resource}": {}} for kind, resource in resources.items()}
    return {"f:spec": {"f:containers": {f'k:{{"name":"{container}"}}': {"f:resources": owned}}}}


@pytest.mark.parametrize(
    ("entry", "resized"),
    [
        ({"manager": "airflow-tuner", "subresource": "resize", "fieldsV1": hand("worker", limits="memory")}, "memory"),
        ({"manager": "airflow-tuner", "subresource": "resize", "fieldsV1": hand("worker", requests="cpu")}, "cpu"),
        ({"manager": "airflow-tuner", "subresource": "resize", "fieldsV1": hand("other", limits="memory")}, ""),
        ({"manager": "airflow-tuner", "subresource": "status"}, ""),
        ({"manager": "airflow-tuner"}, ""),
        ({"manager": "kubectl-patch", "subresource": "resize", "fieldsV1": hand("worker", limits="memory")}, ""),
    ],
)
def test_a_pod_that_we_resized_shows_what_of_it(entry: Object, resized: str) -> None:
    managers = [{"manager": "kube-controller-manager", "operation": "Update"}, entry]
    pod = one_pod(metadata={"managedFields": managers})
    assert (pod.resized, pod.resized_cpu) == (resized == "memory", resized == "cpu")


@pytest.mark.parametrize(
    ("condition", "problem"),
    [
        (
            {"type": "PodResizePending", "status": "True", "reason": "Deferred", "message": "Node is full"},
            "Deferred: Node is full",
        ),
        (
            {"type": "PodResizePending", "status": "True", "reason": "Infeasible", "message": "Too large"},
            "Infeasible: Too large",
        ),
        (
            {"type": "PodResizeInProgress", "status": "True", "reason": "Error", "message": "It failed"},
            "Error: It failed",
        ),
        ({"type": "PodResizePending", "status": "False", "reason": "Deferred", "message": "Node is full"}, ""),
        ({"type": "PodResizeInProgress", "status": "True"}, ""),
        ({"type": "Ready", "status": "True"}, ""),
    ],
)
def test_a_resize_that_is_stuck_is_told_in_the_kubelets_words(condition: Object, problem: str) -> None:
    assert one_pod(conditions=[{"type": "PodScheduled", "status": "True"}, condition]).resize_problem == problem


def test_a_pod_is_ending_when_it_is_deleted_or_has_ended() -> None:
    assert not one_pod().ending
    assert one_pod(metadata={"deletionTimestamp": "2026-11-24T12:00:00Z"}).ending
    assert one_pod(phase="Failed").ending
    assert one_pod(phase="Succeeded").ending
    assert not one_pod(phase="Pending").ending


def test_a_guaranteed_pod_and_one_born_tuned_are_known() -> None:
    assert one_pod(qosClass="Guaranteed").guaranteed
    assert not one_pod(qosClass="Burstable").guaranteed
    assert one_pod(metadata={"annotations": {"airflow-tuner.dev/decision": "d-1"}}).decision == "d-1"
    assert one_pod().decision is None
    assert one_pod().created == datetime(2026, 11, 24, 10, tzinfo=UTC)


def test_another_charts_component_label_is_read() -> None:
    labels = {"app": "flow", "app.kubernetes.io/component": "worker"}
    (found,) = read(workload("flow-worker", "", "worker", labels=labels, selector={"app": "flow"})).values()
    assert (found.target, found.component, found.pod_labels) == ("worker/default", "worker", {"app": "flow"})
    both = {"component": "scheduler", "app.kubernetes.io/component": "worker"}
    assert list(read(workload("flow", "", "x", labels=both))) == ["scheduler"], "as at admission"
    assert read(workload("flow", "", "x", labels={"app": "flow"})) == {}


def test_the_template_tells_the_names_of_its_variables_and_its_probe_but_no_values() -> None:
    item = workload("airflow-scheduler", "scheduler", "scheduler")
    item["spec"]["template"]["spec"]["containers"][0] |= {
        "env": [
            {"name": "AIRFLOW__SCHEDULER__PARSING_PROCESSES", "value": "4"},
            {"name": "SECRET", "value": "s3cret"},
            {"name": "CONN", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
        ],
        "livenessProbe": {
            "exec": {"command": ["airflow", "jobs", "check"]},
            "timeoutSeconds": 20,
            "failureThreshold": 5,
        },
    }
    found = read(item)["scheduler"]
    assert found.names == {"AIRFLOW__SCHEDULER__PARSING_PROCESSES", "SECRET", "CONN"}
    assert found.probe is not None
    assert (found.probe.what, found.probe.timeout, found.probe.failures) == ("airflow jobs check", 20, 5)
    assert "s3cret" not in repr(found)
    bare = read(workload("airflow-scheduler", "scheduler", "scheduler"))["scheduler"]
    assert (bare.names, bare.probe) == (frozenset(), None)


LOW = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 51Mi. Container worker was using 1Gi"
ENDED = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": "2026-11-24T12:00:00Z"}


def test_an_evicted_pod_says_when_and_why_its_node_ended_it() -> None:
    gone = one_pod(phase="Failed", reason="Evicted", message=LOW, conditions=[ENDED])
    assert gone.eviction == Eviction(AT, LOW)
    assert gone.ending
    terminated = {"state": {"terminated": {"finishedAt": "2026-11-24T12:00:00Z"}}}
    assert one_pod(phase="Failed", reason="Evicted", message=LOW, state=terminated).eviction == Eviction(AT, LOW)


def test_a_container_that_ended_with_its_eviction_did_not_reach_its_limit() -> None:
    told = {"reason": "OOMKilled", "exitCode": 137, "finishedAt": "2026-11-24T12:00:10Z"}
    gone = one_pod(
        phase="Failed", reason="Evicted", message=LOW, conditions=[ENDED], state={"state": {"terminated": told}}
    )
    assert (gone.eviction, gone.death) == (Eviction(AT, LOW), None)
    before = {**told, "finishedAt": "2026-11-24T11:59:00Z"}
    killed = one_pod(
        phase="Failed", reason="Evicted", message=LOW, conditions=[ENDED], state={"state": {"terminated": before}}
    )
    assert killed.death is not None


def test_an_eviction_for_another_reason_or_at_no_known_time_is_none_for_memory() -> None:
    disk = LOW.replace("memory", "ephemeral-storage")
    assert one_pod(phase="Failed", reason="Evicted", message=disk, conditions=[ENDED]).eviction is None
    assert one_pod(phase="Failed", reason="Evicted", message=LOW).eviction is None
    assert one_pod(phase="Failed", reason="Preempting", message=LOW, conditions=[ENDED]).eviction is None
    assert one_pod().eviction is None

"""The virtual node against the real API server, controllers, scheduler and Prometheus."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from testbed.commands import CommandFailed
from testbed.controlplane import ControlPlane
from testbed.processes import Area
from testbed.prometheus import Prometheus
from testbed.virtual_eaters import Eaters
from testbed.virtual_habits import Habits
from testbed.virtual_node import GIBIBYTE, VirtualNode

Object = dict[str, Any]

NAMESPACE = "virtual-node"
TAINT = {"key": "tests/virtual-node", "effect": "NoSchedule"}
LABELS = {"tier": "airflow", "release": "airflow", "component": "worker"}
QUICK = Habits(resize_retry=2.0, first_back_off=3.0)


class Pods:
    """The pods of a namespace on a virtual node, whose containers eat on demand."""

    def __init__(self, control_plane: ControlPlane, node: VirtualNode, eaters: Eaters, namespace: str) -> None:
        self.control_plane, self.node, self.eaters, self.namespace = control_plane, node, eaters, namespace

    def kubectl(self, *args: str, **options: Any) -> str:  # noqa: ANN401 - handed on
        """Kubectl in the namespace."""
        return self.control_plane.kubectl(f"--namespace={self.namespace}", *args, **options)

    def create(self, item: Object) -> None:
        """Create an object."""
        self.kubectl("create", "--filename=-", input=json.dumps(item))

    def spec(self, resources: Object | None = None, **pod: Any) -> Object:  # noqa: ANN401 - any field of a pod
        """The spec of a pod that only this node takes."""
        container = {"name": "worker", "image": "eater:none", "resources": resources or memory(100, 200)}
        container |= pod.pop("container", {})
        tolerations = [{"key": TAINT["key"], "operator": "Exists"}]
        chosen = {"kubernetes.io/hostname": self.node.name}
        return {"containers": [container], "tolerations": tolerations, "nodeSelector": chosen, **pod}

    def run(self, name: str, resources: Object | None = None, **pod: Any) -> None:  # noqa: ANN401 - as above
        """Create a worker, and wait until it is ready."""
        metadata = {"name": name, "labels": LABELS}
        self.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": self.spec(resources, **pod)})
        self.until(name, ready)

    def get(self, name: str) -> Object:
        """One pod."""
        found: Object = json.loads(self.kubectl("get", "pod", name, "--output=json"))
        return found

    def until(self, name: str, holds: Callable[[Object], bool], seconds: float = 30) -> Object:
        """The pod, as soon as that holds of it."""
        deadline = time.monotonic() + seconds
        while not holds(pod := self.get(name)):
            assert time.monotonic() < deadline, json.dumps(pod["status"], indent=1)
            time.sleep(0.1)
        return pod

    def resize(self, name: str, resources: Object) -> None:
        """Ask for other resources in place."""
        body = json.dumps({"spec": {"containers": [{"name": "worker", "resources": resources}]}})
        self.kubectl("patch", "pod", name, "--subresource=resize", "--patch", body)

    def events(self, name: str) -> list[str]:
        """The reasons of the kubelet's Events about a pod, in order."""
        items = json.loads(self.kubectl("get", "events", "--output=json"))["items"]
        own = [item for item in items if item["involvedObject"]["name"] == name]
        return [item["reason"] for item in own if item["source"].get("component") == "kubelet"]

    def exists(self, name: str) -> bool:
        """Whether the API server has it."""
        return bool(self.kubectl("get", "pod", name, "--ignore-not-found", "--output=name"))


def memory(request: int, limit: int) -> Object:
    return {"requests": {"memory": f"{request}Mi"}, "limits": {"memory": f"{limit}Mi"}}


def container(pod: Object) -> Object:
    return dict((pod["status"].get("containerStatuses") or [{"restartCount": 0, "state": {}}])[0])


def conditions(pod: Object) -> dict[str, Object]:
    return {each["type"]: each for each in pod["status"].get("conditions") or []}


def ready(pod: Object) -> bool:
    return conditions(pod).get("Ready", {}).get("status") == "True"


def in_force(resources: Object) -> Callable[[Object], bool]:
    """Whether these are in force, and the resize is over."""

    def holds(pod: Object) -> bool:
        return container(pod).get("resources") == resources and not resizing(pod)

    return holds


def resizing(pod: Object) -> Object:
    """The conditions of a resize, by type."""
    return {kind: each for kind, each in conditions(pod).items() if kind.startswith("PodResize")}


def eventually(check: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def pods(area: Area, control_plane: ControlPlane) -> Iterator[Pods]:
    """A node of the tests' own, of 4 GiB and 8 cores."""
    control_plane.kubectl("create", "namespace", NAMESPACE)
    eaters = Eaters()
    with VirtualNode(
        area,
        control_plane,
        eaters,
        name="virtual-tests",
        memory=4 * GIBIBYTE,
        cores=8,
        namespace=NAMESPACE,
        taints=[TAINT],
        habits=QUICK,
        housekeeping_seconds=1.0,
    ) as node:
        yield Pods(control_plane, node, eaters, NAMESPACE)
        control_plane.kubectl("delete", "namespace", NAMESPACE)


def test_the_scheduler_places_the_pods_of_a_deployment_and_they_become_ready(pods: Pods) -> None:
    template = {"metadata": {"labels": {**LABELS, "set": "d"}}, "spec": pods.spec(initContainers=[WAIT])}
    spec = {"replicas": 3, "selector": {"matchLabels": {"set": "d"}}, "template": template}
    pods.create({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
    pods.kubectl("rollout", "status", "deployment/d", "--timeout=30s")
    items = json.loads(pods.kubectl("get", "pods", "--selector=set=d", "--output=json"))["items"]
    assert len(items) == 3
    assert len({item["status"]["podIP"] for item in items}) == 3
    for item in items:
        status = container(item)
        assert status["resources"] == memory(100, 200)
        assert status["allocatedResources"] == {"memory": "100Mi"}
        assert status["containerID"].startswith("containerd://")
        assert item["status"]["observedGeneration"] == item["metadata"]["generation"]
        assert item["status"]["qosClass"] == "Burstable"
        assert item["status"]["initContainerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"
        assert conditions(item)["PodScheduled"]["status"] == "True"
        assert item["metadata"]["name"] in pods.eaters.living
    pods.kubectl("delete", "deployment", "d")


def test_a_raised_limit_is_in_force_without_a_restart(pods: Pods) -> None:
    pods.run("raised")
    pods.resize("raised", memory(100, 300))
    pod = pods.until("raised", in_force(memory(100, 300)))
    assert container(pod)["restartCount"] == 0
    assert pod["status"]["observedGeneration"] == pod["metadata"]["generation"] == 2
    assert pods.eaters.living["raised"].limit == 300 * 2**20
    eventually(lambda: pods.events("raised") == ["ResizeStarted", "ResizeCompleted"], "the Events")


def test_a_limit_is_lowered_where_usage_is_below_it(pods: Pods) -> None:
    pods.run("lowered")
    pods.resize("lowered", memory(100, 150))
    pods.until("lowered", in_force(memory(100, 150)))
    assert pods.eaters.living["lowered"].limit == 150 * 2**20


def test_a_limit_below_usage_is_an_error_until_another_resize(pods: Pods) -> None:
    pods.run("below")
    pods.node.ask(lambda: pods.eaters.eat("below", 70))
    pods.resize("below", memory(50, 60))
    usage, limit = 80 * 2**20, 60 * 2**20
    pod = pods.until("below", lambda pod: resizing(pod).get("PodResizeInProgress", {}).get("reason") == "Error")
    assert resizing(pod)["PodResizeInProgress"]["message"] == (
        f'cannot decrease memory limits: attempting to set container "worker" memory limit ({limit})'
        f" below current usage ({usage})"
    )
    assert container(pod)["resources"] == memory(100, 200)
    assert container(pod)["allocatedResources"] == {"memory": "50Mi"}
    pods.resize("below", memory(100, 200))
    pods.until("below", in_force(memory(100, 200)))
    pods.resize("below", memory(50, 60))
    pods.until("below", lambda pod: resizing(pod).get("PodResizeInProgress", {}).get("reason") == "Error")
    pods.node.ask(lambda: pods.eaters.eat("below", 0))
    pods.until("below", in_force(memory(50, 60)))


def test_the_api_server_refuses_a_request_beyond_the_node(pods: Pods) -> None:
    pods.run("beyond")
    with pytest.raises(CommandFailed, match="didn't have enough allocatable resources: memory"):
        pods.resize("beyond", memory(5000, 6000))


def test_a_request_that_does_not_fit_waits_until_there_is_room(pods: Pods) -> None:
    pods.run("waits")
    pods.run("fills", memory(2900, 2900))
    pods.resize("waits", memory(2000, 2100))
    pod = pods.until("waits", lambda pod: "PodResizePending" in resizing(pod))
    pending = resizing(pod)["PodResizePending"]
    assert pending["reason"] == "Deferred"
    assert pending["message"].startswith(f"Node didn't have enough resource: memory, requested: {2000 * 2**20}, used: ")
    assert pending["message"].endswith(f", capacity: {4 * GIBIBYTE}")
    assert container(pod)["resources"] == memory(100, 200)
    pods.kubectl("delete", "pod", "fills")
    pods.until("waits", in_force(memory(2000, 2100)))
    pods.kubectl("delete", "pod", "waits")


def test_a_pod_that_was_bound_without_room_is_refused(pods: Pods) -> None:
    spec = pods.spec(memory(5000, 5000), nodeName=pods.node.name)
    pods.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "refused"}, "spec": spec})
    pod = pods.until("refused", lambda pod: bool(pod["status"]["phase"] == "Failed"))
    assert pod["status"]["reason"] == "OutOfmemory"
    assert pod["status"]["message"].startswith("Pod was rejected: Node didn't have enough resource: memory")


def test_a_resize_restarts_a_container_whose_policy_says_so(pods: Pods) -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    pods.run("renewed", container={"resizePolicy": policy})
    before = container(pods.get("renewed"))
    pods.resize("renewed", memory(100, 300))
    after = container(pods.until("renewed", in_force(memory(100, 300))))
    assert (after["restartCount"], after["ready"]) == (1, True)
    assert after["containerID"] != before["containerID"]


def test_a_killed_container_comes_back_with_a_trace_and_a_killed_child_leaves_none(
    pods: Pods, prometheus_factory: Callable[..., Prometheus]
) -> None:
    prometheus = prometheus_factory(pods.node.scrape_configs("1s"))
    of = 'namespace="virtual-node",pod="killed",container="worker"'

    def value(promql: str) -> float:
        found = prometheus.query(promql)
        return float(found[0]["value"][1]) if found else -1

    pods.run("killed", {**memory(100, 200), "limits": {"memory": "200Mi", "cpu": "1"}})
    eventually(lambda: value(f"container_spec_memory_limit_bytes{{{of}}}") == 200 * 2**20, "the limit in Prometheus")
    assert value(f"container_oom_events_total{{{of}}}") == 0

    before = pods.get("killed")
    pods.node.ask(lambda: pods.eaters.eat_in_child("killed", 500))
    eventually(lambda: value(f"container_oom_events_total{{{of}}}") == 1, "the kill in Prometheus")
    assert pods.get("killed")["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert value(f"container_memory_max_usage_bytes{{{of}}}") == 200 * 2**20
    eventually(lambda: value(f"rate(container_cpu_usage_seconds_total{{{of}}}[10s])") > 0, "CPU")
    eventually(lambda: value('rate(container_cpu_usage_seconds_total{id="/"}[10s])') > 0, "CPU of the node")
    assert value("machine_cpu_cores") == 8
    assert value("airflow_eaters") >= 1

    for restarts in (1, 2):
        pods.node.ask(lambda: pods.eaters.eat("killed", 500))
        after = pods.until("killed", lambda pod: container(pod)["restartCount"] == restarts and ready(pod))  # noqa: B023 - used at once
        assert container(after)["lastState"]["terminated"]["reason"] == "OOMKilled"
        assert container(after)["lastState"]["terminated"]["exitCode"] == 137
    pods.node.ask(lambda: pods.eaters.eat("killed", 500))
    waiting = pods.until("killed", lambda pod: "waiting" in container(pod)["state"])
    assert container(waiting)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert "back-off 6s restarting failed container=worker pod=killed_virtual-node(" in str(waiting["status"])
    pods.resize("killed", {**memory(100, 400), "limits": {"memory": "400Mi", "cpu": "1"}})
    pods.until("killed", lambda pod: container(pod)["restartCount"] == 3 and ready(pod))
    assert pods.node.ask(lambda: pods.eaters.living["killed"].limit) == 400 * 2**20


def test_a_pod_ends_gracefully_once_it_is_idle(pods: Pods) -> None:
    pods.run("graceful", terminationGracePeriodSeconds=600)
    pods.node.ask(lambda: setattr(pods.eaters.living["graceful"], "busy", True))
    pods.kubectl("delete", "pod", "graceful", "--wait=false")
    eventually(lambda: pods.eaters.living["graceful"].stopping, "SIGTERM")
    assert "running" in container(pods.get("graceful"))["state"]
    pods.node.ask(lambda: setattr(pods.eaters.living["graceful"], "busy", False))
    eventually(lambda: not pods.exists("graceful"), "the end")
    assert "graceful" not in pods.eaters.living


def test_a_pod_that_stays_busy_is_killed_after_its_grace_period(pods: Pods) -> None:
    pods.run("stubborn", terminationGracePeriodSeconds=1)
    pods.node.ask(lambda: setattr(pods.eaters.living["stubborn"], "busy", True))
    pods.kubectl("delete", "pod", "stubborn")
    assert "stubborn" not in pods.eaters.living


def test_an_eviction_honours_the_disruption_budget(pods: Pods) -> None:
    budget = {"minAvailable": 1, "selector": {"matchLabels": {"component": "scheduler"}}}
    pods.create({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "one"}, "spec": budget})
    labels = {**LABELS, "component": "scheduler"}
    for name in ("first", "second"):
        pods.create(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": pods.spec()}
        )
        pods.until(name, ready)
    words = ("get", "pdb", "one", "--output=jsonpath={.status.disruptionsAllowed}")
    eventually(lambda: pods.kubectl(*words) == "1", "the budget")

    def evict(name: str) -> None:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NAMESPACE}}
        where = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction"
        pods.kubectl("create", f"--raw={where}", "--filename=-", input=json.dumps(body))

    evict("first")
    eventually(lambda: not pods.exists("first"), "the eviction")
    with pytest.raises(CommandFailed, match="disruption budget"):
        evict("second")


def test_a_job_completes_and_a_pod_that_is_no_airflow_just_runs(pods: Pods) -> None:
    template = {"spec": pods.spec(restartPolicy="Never")}
    pods.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": template}})
    pods.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "plain"}, "spec": pods.spec()})
    pods.kubectl("wait", "job/j", "--for=condition=complete", "--timeout=30s")
    assert ready(pods.until("plain", ready))
    assert "plain" not in pods.eaters.living


def test_the_node_outlives_an_outage_of_the_api_server(needs: Callable[..., None]) -> None:
    needs("control-plane")
    area = Area("virtual-outage")
    eaters = Eaters()
    try:
        with (
            ControlPlane(area) as plane,
            VirtualNode(area, plane, eaters, count=2, namespace="default", habits=QUICK) as node,
        ):
            pods = Pods(plane, node, eaters, "default")
            for name, place in (("one", "virtual-0"), ("two", "virtual-1")):
                pods.run(name, nodeSelector={"kubernetes.io/hostname": place})
            assert pods.get("one")["spec"]["nodeName"] == "virtual-0"
            plane.stop_api_server()
            node.ask(lambda: eaters.eat("two", 500))
            eventually(lambda: "two" not in eaters.living, "the kill")
            plane.start_api_server()
            after = pods.until("two", lambda pod: container(pod)["restartCount"] == 1 and ready(pod))
            assert container(after)["lastState"]["terminated"]["reason"] == "OOMKilled"
            pods.resize("one", memory(100, 300))
            pods.until("one", in_force(memory(100, 300)))
            pods.kubectl("delete", "pod", "one", "two")
    finally:
        area.clean()


WAIT = {"name": "wait", "image": "eater:none", "resources": memory(100, 200)}

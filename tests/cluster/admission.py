"""The chart on a control plane of its own, a policy whose status is written by hand, and pods that are tried on it.

Every status names its decision on a witness, the scheduler's pods, so that a pod that is left alone was born while the
very status under test was in force.
"""

import copy
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from testbed.controlplane import ControlPlane
from testbed.helm import helm
from testbed.processes import Area

Object = dict[str, Any]
Answer = TypeVar("Answer")

CHART = Path(__file__).parents[2] / "charts" / "airflow-tuner"
WAIT_SECONDS = 15.0
POLICY, DECISION, ORIGINAL, ORIGINAL_ENVIRONMENT = (
    f"airflow-tuner.dev/{name}" for name in ("policy", "decision", "original-memory", "original-environment")
)
TEMPLATE = {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
TUNED = {"requests": {"cpu": "500m", "memory": "768Mi"}, "limits": {"cpu": "1", "memory": "1536Mi"}}
OWN_SIZES: Object = {
    "asks-for-less": {**TEMPLATE, "requests": {"cpu": "500m", "memory": "256Mi"}},
    "may-use-more": {**TEMPLATE, "limits": {"cpu": "1", "memory": "2Gi"}},
}
SPEC = {
    "mode": "Enforce",
    "airflow": {"release": "airflow"},
    "scheduler": {"memory": {"min": "256Mi", "max": "16Gi"}},
    "dagProcessor": {
        "memory": {"min": "256Mi", "max": "2Gi"},
        "parsing": {"intervalSeconds": {"min": 15, "max": 600}, "processes": {"min": 1, "max": 4}},
    },
    "apiServer": {"memory": {"min": "256Mi", "max": "2Gi"}},
    "workers": [
        {"name": "default", "memory": {"min": 536870912, "max": "4Gi"}, "concurrency": {"min": 2, "max": 16}},
    ],
}
ENTRY = {
    "target": "worker/default",
    "component": "worker",
    "bounds": "workers/default",
    "decision": "worker-default-0000",
    "since": "2026-11-24T00:00:00Z",
    "container": "worker",
    "workload": "Deployment/airflow-worker",
    "podLabels": {"tier": "airflow", "component": "worker", "release": "airflow"},
    "baseline": TEMPLATE,
    "requests": {"memory": "768Mi"},
    "limits": {"memory": "1536Mi"},
}
WITNESS = {
    **ENTRY,
    "target": "scheduler",
    "component": "scheduler",
    "bounds": "scheduler",
    "container": "scheduler",
    "workload": "Deployment/airflow-scheduler",
    "podLabels": {"component": "scheduler"},
}
POOL = {"name": "POOL", "value": "4"}
OWNER: Object = {
    "apiVersion": "apps/v1",
    "kind": "ReplicaSet",
    "uid": "00000000-0000-0000-0000-000000000001",
    "controller": True,
}
_numbers = itertools.count(1)


def labels(component: str = "worker", release: str = "airflow") -> dict[str, str]:
    """Returns the labels of the official chart."""
    return {"tier": "airflow", "component": component, "release": release}


def pod(
    own_labels: dict[str, str],
    resources: Object | None = None,
    container: str = "worker",
    owner: str = "",
    env: Sequence[Object] = (),
) -> Object:
    """Returns a pod, or the template of one, as the official chart makes them, plus a native sidecar."""
    same: Object = {"image": "airflow:none", "resources": TEMPLATE if resources is None else resources}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "trial",
            "labels": {**own_labels, "pod-template-hash": "1"},
            "annotations": {"checksum/airflow-config": "1"},
            "ownerReferences": [{**OWNER, "name": f"{owner or 'airflow-' + own_labels['component']}-1"}],
        },
        "spec": {
            "initContainers": [
                {"name": "wait-for-airflow-migrations", **same},
                {"name": "git-sync-init", "image": "git:none", "resources": {"limits": {"memory": "64Mi"}}},
                *({"name": name, "image": "own:none", "resources": sizes} for name, sizes in OWN_SIZES.items()),
                {"name": "native-sidecar", "restartPolicy": "Always", **same},
            ],
            "containers": [
                {"name": container, "env": [POOL, *env], **same},
                {"name": "log-groomer", "image": "airflow:none", "resources": {"limits": {"memory": "64Mi"}}},
            ],
        },
    }


def deployment(name: str, template: Object) -> Object:
    """Returns a Deployment of one such pod."""
    own = {key: value for key, value in template["metadata"]["labels"].items() if key != "pod-template-hash"}
    metadata = {"labels": own, "annotations": template["metadata"]["annotations"]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": own},
        "spec": {
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": own},
            "template": {"metadata": metadata, "spec": template["spec"]},
        },
    }


def resources(born: Object, container: str = "worker") -> Object:
    """Returns the resources of one of a pod's containers."""
    every = [*born["spec"]["containers"], *born["spec"].get("initContainers", [])]
    return dict(next(item["resources"] for item in every if item["name"] == container))


def environment(born: Object, container: str = "worker") -> list[Object]:
    """Returns the variables of one of a pod's containers, by name."""
    every = [*born["spec"]["containers"], *born["spec"].get("initContainers", [])]
    found = next(item.get("env", []) for item in every if item["name"] == container)
    return sorted(found, key=lambda item: str(item["name"]))


def eventually(check: Callable[[], Answer | None], what: str) -> Answer:
    """Returns the first true answer of `check`; fails after a time limit."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not (answer := check()):
        assert time.monotonic() < deadline, f"waited {WAIT_SECONDS:g} s for {what}, in vain"
        time.sleep(0.1)
    return answer


class Airflow:
    """One namespace with Airflow's Deployments, and a policy in it."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self._plane = plane
        self._spec: Object = {}
        self.namespace = namespace

    def kubectl(self, *args: str, body: Object | None = None) -> str:
        """Runs kubectl in this namespace."""
        text = None if body is None else json.dumps(body)
        return self._plane.kubectl(f"--namespace={self.namespace}", *args, input=text)

    def deploy(self, name: str, template: Object) -> None:
        """Makes a Deployment, or changes it."""
        self.kubectl("apply", "--filename=-", body=deployment(name, template))

    def policy(self, **changes: Any) -> None:  # noqa: ANN401 - parts of a spec
        """Makes the policy `airflow` with this in its spec, unless it is so already."""
        spec = {key: value for key, value in {**SPEC, **changes}.items() if value is not None}
        if spec != self._spec:
            kind = {"apiVersion": "airflow-tuner.dev/v1alpha1", "kind": "TuningPolicy"}
            self.kubectl("apply", "--filename=-", body={**kind, "metadata": {"name": "airflow"}, "spec": spec})
            self._spec = spec

    def delete_policy(self) -> None:
        """Deletes the policy, as far as its finalizers let it go."""
        self.kubectl("delete", "tuningpolicy", "airflow", "--wait=false")
        self._spec = {}

    def write(self, *tuned: Object) -> None:
        """Replaces the entries in the policy's status."""
        how = ("--subresource=status", "--type=merge", "--patch-file=/dev/stdin")
        self.kubectl("patch", "tuningpolicy", "airflow", *how, body={"status": {"tuned": tuned}})

    def decide(self, *tuned: Object) -> None:
        """Writes the entries and one for the witness; returns when the API server goes by them."""
        decision = f"witness-{next(_numbers)}"
        self.write(*tuned, {**WITNESS, "decision": decision})

        def witnessed() -> bool:
            born = self.trial(pod(labels("scheduler"), container="scheduler"))
            return bool(born["metadata"]["annotations"].get(DECISION) == decision)

        eventually(witnessed, "the admission policy to go by the status")

    def trial(self, manifest: Object) -> Object:
        """Returns a pod as the API server would make it, without making it."""
        out = self.kubectl("create", "--dry-run=server", "--filename=-", "--output=json", body=manifest)
        return dict(json.loads(out))

    def newborn(self, *, release: str = "airflow") -> Object:
        """Deletes the release's worker and returns the pod its ReplicaSet makes instead."""
        selector = f"--selector=component=worker,release={release}"

        def pods() -> list[Object]:
            return list(json.loads(self.kubectl("get", "pods", selector, "--output=json"))["items"])

        old = {item["metadata"]["uid"] for item in pods()}
        self.kubectl("delete", "pods", selector, "--grace-period=0", "--force", "--wait=false")

        def born() -> Object | None:
            return next((item for item in pods() if item["metadata"]["uid"] not in old), None)

        return eventually(born, "a new pod")


def entry(**changes: Any) -> Object:  # noqa: ANN401 - parts of an entry
    """Returns the honest entry for the worker, with this in place of its own parts."""
    return {**copy.deepcopy(ENTRY), **changes}


def is_tuned(born: Object) -> bool:
    """Whether the worker of a pod got what the honest entry says."""
    return resources(born) == TUNED and born["metadata"]["annotations"].get(DECISION) == ENTRY["decision"]


def is_untouched(born: Object, template: Object | None = None, container: str = "worker") -> bool:
    """Whether a pod is as its template says."""
    marks = {POLICY, DECISION, ORIGINAL, ORIGINAL_ENVIRONMENT} & born["metadata"]["annotations"].keys()
    wanted = TEMPLATE if template is None else template
    return not marks and all(resources(born, name) == wanted for name in (container, "wait-for-airflow-migrations"))


@contextmanager
def plane_with_chart(name: str) -> Iterator[ControlPlane]:
    """Runs a control plane of its own with the chart on it: the chart's objects are cluster-wide."""
    area = Area(name)
    try:
        with ControlPlane(area) as running:
            helm(
                running,
                "install",
                "tuner",
                CHART,
                "--namespace=operators",
                "--create-namespace",
                "--set=admission.failurePolicy=Fail",
            )
            yield running
    finally:
        area.clean()


def airflow_with_policy(plane: ControlPlane) -> Airflow:
    """Returns the namespace `airflow` with a policy in it, as soon as admission works there."""
    plane.kubectl("create", "namespace", "airflow")
    airflow = Airflow(plane, "airflow")
    eventually(
        lambda: "tuningpolicies" in plane.kubectl("api-resources", "--api-group=airflow-tuner.dev"), "the resource"
    )
    airflow.policy()
    airflow.decide(entry())
    return airflow

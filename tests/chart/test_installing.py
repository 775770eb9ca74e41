"""The chart in a real cluster, by both Helms: installed, upgraded, uninstalled, and installed again."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from testbed.controlplane import ControlPlane
from testbed.helm import helm
from testbed.processes import Area

Object = dict[str, Any]

WAIT_SECONDS = 15.0
DEFINITION = "tuningpolicies.airflow-tuner.dev"
DEFINITIONS = (DEFINITION, "tuningcheckpoints.airflow-tuner.dev")
POLICY = {
    "apiVersion": "airflow-tuner.dev/v1alpha1",
    "kind": "TuningPolicy",
    "metadata": {"name": "airflow"},
    "spec": {
        "mode": "Enforce",
        "airflow": {"release": "airflow"},
        "scheduler": {"memory": {"min": "512Mi", "max": "4Gi"}},
    },
}
LABELS = {"tier": "airflow", "component": "scheduler", "release": "airflow"}
STATUS = {
    "tuned": [
        {
            "target": "scheduler",
            "component": "scheduler",
            "bounds": "scheduler",
            "decision": "scheduler-1",
            "since": "2026-11-24T00:00:00Z",
            "container": "scheduler",
            "workload": "StatefulSet/airflow-scheduler",
            "podLabels": LABELS,
            "baseline": {},
            "requests": {"memory": "1Gi"},
            "limits": {"memory": "2Gi"},
        }
    ]
}
OWNER = {
    "apiVersion": "apps/v1",
    "kind": "StatefulSet",
    "name": "airflow-scheduler",
    "uid": "00000000-0000-0000-0000-000000000001",
    "controller": True,
}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "trial", "labels": LABELS, "ownerReferences": [OWNER]},
    "spec": {"containers": [{"name": "scheduler", "image": "airflow:none"}]},
}
MAY = [
    "patch pods --subresource=resize",
    "create pods --subresource=eviction",
    "watch tuningpolicies",
    "update tuningpolicies --subresource=status",
]
MAY_NOT = [
    "get secrets",
    "list secrets",
    "get secrets/another",
    "delete pods",
    "create pods",
    "patch pods",
    "create pods --subresource=exec",
    "patch deployments.apps",
    "patch tuningpolicies",
    "create mutatingadmissionpolicies",
]


def eventually(check: Callable[[], bool], what: str) -> None:
    """Waits until `check` holds; fails after a time limit."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not check():
        assert time.monotonic() < deadline, f"waited {WAIT_SECONDS:g} s for {what}, in vain"
        time.sleep(0.1)


class Release:
    """The release `tuner` in the namespace `operators`, by one of the Helms."""

    def __init__(self, plane: ControlPlane, chart: Path, version: Literal[3, 4]) -> None:
        self._plane = plane
        self._chart = chart
        self._version = version

    def helm(self, verb: str, *settings: str) -> str:
        """Runs Helm on the release."""
        chart: list[str | Path] = [] if verb == "uninstall" else [self._chart]
        return helm(self._plane, verb, "tuner", *chart, "--namespace=operators", *settings, version=self._version)

    def read(self, *args: str) -> Object:
        """Returns an object of the operator's namespace, or of the cluster."""
        return dict(json.loads(self._plane.kubectl("--namespace=operators", "get", *args, "--output=json")))

    def may(self, what: str, namespace: str) -> bool:
        """Whether the operator's ServiceAccount may do this."""
        account = "--as=system:serviceaccount:operators:tuner-airflow-tuner"
        argv = ["auth", "can-i", *what.split(), f"--namespace={namespace}", account]
        return self._plane.kubectl(*argv, check=False).strip() == "yes"

    def shapes(self, namespace: str) -> bool:
        """Whether a new pod in the namespace gets what the policy there says."""
        argv = [f"--namespace={namespace}", "create", "--dry-run=server", "--filename=-", "--output=json"]
        born = json.loads(self._plane.kubectl(*argv, input=json.dumps(POD)))
        return bool(born["spec"]["containers"][0]["resources"].get("limits") == {"memory": "2Gi"})


@pytest.fixture(scope="module")
def plane(needs: Callable[..., None]) -> Iterator[ControlPlane]:
    """Runs a control plane of its own, because the definition is one for the whole cluster; two Airflows are in it."""
    needs("control-plane", "helm", "helm3")
    area = Area("chart")
    try:
        with ControlPlane(area) as running:
            for namespace in ("airflow", "elsewhere", "operators"):
                running.kubectl("create", "namespace", namespace)
            restricted = "pod-security.kubernetes.io/enforce=restricted"
            running.kubectl("label", "namespace", "operators", restricted)
            yield running
    finally:
        area.clean()


@pytest.fixture(params=[4, 3], ids=["helm 4", "helm 3"])
def release(request: pytest.FixtureRequest, plane: ControlPlane, chart: Path) -> Iterator[Release]:
    """Returns the release before its installation; afterwards nothing of it is left."""
    here = Release(plane, chart, request.param)
    yield here
    here.helm("uninstall", "--ignore-not-found")
    plane.kubectl("delete", "crd", *DEFINITIONS, "--ignore-not-found")


def write_policies(plane: ControlPlane) -> None:
    """Makes a policy, with a status, for each Airflow."""
    for namespace in ("airflow", "elsewhere"):
        here = f"--namespace={namespace}"
        eventually(lambda: DEFINITION in plane.kubectl("get", "crd", "--output=name"), "the definition")
        plane.kubectl("wait", f"crd/{DEFINITION}", "--for=condition=Established", "--timeout=15s")
        plane.kubectl(here, "apply", "--filename=-", input=json.dumps(POLICY))
        patch = json.dumps({"status": STATUS})
        plane.kubectl(here, "patch", "atp", "airflow", "--subresource=status", "--type=merge", f"--patch={patch}")


def has_pod(plane: ControlPlane) -> bool:
    """Whether the operator's Deployment has made a pod: the namespace admits no pod that is not *restricted*."""
    return bool(plane.kubectl("--namespace=operators", "get", "pods", "--output=name"))


@pytest.mark.parametrize("watched", ["", "airflow"], ids=["whole cluster", "one namespace"])
def test_a_release_from_its_installation_to_its_return(watched: str, release: Release, plane: ControlPlane) -> None:
    scope = [f"--set=watchNamespaces={{{watched}}}"] if watched else []
    notes = release.helm("install", *scope)
    assert "mode: Recommend" in notes
    assert "It has no metrics source" in notes
    write_policies(plane)
    eventually(lambda: has_pod(plane), "the operator's pod under the restricted standard")

    assert all(release.may(what, "airflow") for what in MAY)
    assert not any(release.may(what, "airflow") for what in MAY_NOT)
    assert [release.may(what, "elsewhere") for what in MAY] == [not watched] * len(MAY)
    assert release.may("create leases.coordination.k8s.io", "operators")
    assert not release.may("create leases.coordination.k8s.io", "airflow")

    eventually(lambda: release.shapes("airflow"), "new pods to be shaped")
    assert release.shapes("elsewhere") == (not watched)

    notes = release.helm("upgrade", *scope, "--set=metrics.sources.default.url=http://prometheus:9090")
    assert "It has no metrics source" not in notes
    assert "http://prometheus:9090" in release.read("configmap", "tuner-airflow-tuner")["data"]["sources.yaml"]
    generation = "--output=jsonpath={.metadata.generation}"
    assert plane.kubectl("--namespace=operators", "get", "deployment", "tuner-airflow-tuner", generation) == "2"
    assert release.shapes("airflow")

    release.helm("uninstall")
    assert release.read("crd", DEFINITION)["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert "airflow" in plane.kubectl("--namespace=airflow", "get", "atp", "--output=name"), "policies must stay"
    eventually(lambda: not release.shapes("airflow"), "new pods to follow their template again")
    left = "clusterroles,clusterrolebindings,mutatingadmissionpolicies,mutatingadmissionpolicybindings"
    assert "tuner" not in plane.kubectl("get", left, "--output=name")
    kinds = "roles,rolebindings,deployments,configmaps,serviceaccounts"
    assert "tuner" not in plane.kubectl("get", kinds, "--all-namespaces", "--output=name")

    release.helm("install", *scope)
    eventually(lambda: release.shapes("airflow"), "new pods to be shaped again")


def test_a_definition_that_is_not_to_be_kept_goes_with_the_release(plane: ControlPlane, chart: Path) -> None:
    release = Release(plane, chart, 4)
    release.helm("install", "--set=crds.keep=false")
    release.helm("uninstall")
    eventually(lambda: DEFINITION not in plane.kubectl("get", "crd", "--output=name"), "the definition to go")


def test_a_brokers_secret_is_the_only_one_that_may_be_read(plane: ControlPlane, chart: Path) -> None:
    release = Release(plane, chart, 4)
    try:
        release.helm("install", '--set-json=celery.brokerSecrets=[{"namespace":"airflow","name":"broker-url"}]')
        assert release.may("get secrets/broker-url", "airflow")
        assert not release.may("get secrets/broker-url", "elsewhere")
        refused = ["list secrets", "watch secrets", "get secrets", "get secrets/another", "patch secrets/broker-url"]
        assert not any(release.may(what, "airflow") for what in refused)
    finally:
        release.helm("uninstall", "--ignore-not-found")
        plane.kubectl("delete", "crd", *DEFINITIONS, "--ignore-not-found")


def test_two_releases_watch_a_namespace_each(plane: ControlPlane, chart: Path) -> None:
    names = {"one": "airflow", "two": "elsewhere"}
    try:
        for name, namespace in names.items():
            first = str(name == "one").lower()
            settings = [f"--set=watchNamespaces={{{namespace}}}", f"--set=crds.enabled={first}"]
            helm(plane, "install", name, chart, "--namespace=operators", *settings)
        write_policies(plane)
        both = Release(plane, chart, 4)
        eventually(lambda: both.shapes("airflow") and both.shapes("elsewhere"), "new pods of both to be shaped")
    finally:
        for name in names:
            helm(plane, "uninstall", name, "--namespace=operators", "--ignore-not-found")
        plane.kubectl("delete", "crd", *DEFINITIONS, "--ignore-not-found")

"""What `make prove` measures beside Helm: the user's Airflow release and our own chart, upgraded and rolled back."""

import contextlib
import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from testbed.commands import CommandFailed
from testbed.controlplane import ControlPlane
from testbed.helm import helm
from testbed.operator_process import CHART, NAMESPACE, RELEASE, Operator
from testbed.played_airflow import Object, PlayedAirflow
from testbed.processes import Area, ProgramFailed
from testbed.programs import build
from testbed.telling import say

NOWHERE = "http://127.0.0.1:9"
WAIT = 120.0
ORIGINAL = "airflow-tuner.dev/original-memory"
WORKLOADS = ("deployment/airflow-worker", "statefulset/airflow-worker-kept")
FIRST = 700
"""The workers' memory limit in MiB that Airflow is installed with."""

# The chart's workers once more as a StatefulSet: the official chart makes one where their logs persist.
KEPT = """
{{ $values := omit .Values.workers "celery" "strategy" }}
{{ include "airflow.component" (dict "root" . "component" "worker" "set" "kept" "labels" (dict "worker-set" "kept")
  "values" $values "args" (list "airflow" "celery" "worker")) | replace "kind: Deployment" "kind: StatefulSet" }}
"""
VALUES: Object = {
    "dags": {"hostPath": "/opt/dags"},
    "logs": {"hostPath": "/opt/logs"},
    **{component: {"replicas": 0} for component in ("scheduler", "dagProcessor", "triggerer", "apiServer")},
    "workers": {"replicas": 2, "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}}},
}


class HelmAirflow(PlayedAirflow):
    """The release `airflow` by one of the Helms: two workers of a Deployment, two of a StatefulSet, nothing else."""

    def __init__(self, control_plane: ControlPlane, namespace: str, area: Area, version: Literal[3, 4]) -> None:
        super().__init__(control_plane, namespace)
        self._version = version
        self._chart = area.path / f"{namespace}-chart"
        shutil.copytree(Path(__file__).parent / "airflow-chart", self._chart)
        (self._chart / "templates" / "kept.yaml").write_text(KEPT)
        self._values = self._chart / "chosen.json"
        self._values.write_text(json.dumps(VALUES))

    def upgrade(self, limit: int = FIRST, parallelism: int = 32) -> None:
        """Install or upgrade with a memory limit in MiB; `parallelism` changes no more than an annotation of the pods.

        Pods are started as their workloads wait for it.
        """
        changed = [f"--set=workers.resources.limits.memory={limit}Mi", f"--set=config.core.parallelism={parallelism}"]
        self.helm(
            "upgrade", "airflow", self._chart, "--install", "--history-max=0", f"--values={self._values}", *changed
        )
        self.until(self.rolled_out, "all workers are of the newest template")

    def rollback(self, revision: str = "") -> None:
        """Return to the revision before, or to the one named."""
        self.helm("rollback", "airflow", *([revision] if revision else []), "--history-max=0")
        self.until(self.rolled_out, "all workers are of the newest template")

    def helm(self, *args: str | Path) -> str:
        """Helm in this namespace."""
        return helm(self.control_plane, *args, f"--namespace={self.namespace}", version=self._version)

    def until(self, check: Callable[[], Any], what: str) -> None:
        """Wait until it holds, and play the kubelet meanwhile."""
        deadline = time.monotonic() + WAIT
        while not check():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {WAIT:g} s in vain until {what}")
            if not all(_in_force(pod) for pod in self.pods()):
                with contextlib.suppress(CommandFailed):  # a pod may be replaced before its status is written
                    self.run_all()
            time.sleep(0.1)

    def rolled_out(self) -> bool:
        """Every worker is of the newest template, and runs."""
        for item in self._workloads():
            status, wanted = item.get("status", {}), item["spec"]["replicas"]
            if status.get("observedGeneration") != item["metadata"]["generation"]:
                return False
            if [status.get(key, 0) for key in ("replicas", "updatedReplicas", "readyReplicas")] != [wanted] * 3:
                return False
        return len(self.pods()) == 4

    def kill_one_of_each(self) -> None:
        """One worker of the Deployment and one of the StatefulSet are killed for memory; the answers are awaited."""
        before, pods = self.entries(), self.pods()
        for kept in (False, True):
            self.kill(next(pod for pod in pods if ("worker-set" in pod["metadata"]["labels"]) is kept))
        self.until(lambda: before.items().isdisjoint(self.entries().items()), "the kills are answered")
        self.until(self.as_decided, "the running workers have what was decided")

    def as_decided(self) -> bool:
        """Both workloads have an entry, and every running worker its limit."""
        entries = self.entries()
        return len(entries) == len(WORKLOADS) and self.limits() == set(entries.values())

    def reborn(self) -> None:
        """All workers are deleted; their successors run."""
        old = {pod["metadata"]["uid"] for pod in self.pods()}
        self.kubectl("delete", "pods", "--all", "--grace-period=0", "--force")
        self.until(
            lambda: self.rolled_out() and old.isdisjoint(pod["metadata"]["uid"] for pod in self.pods()), "others run"
        )

    def entries(self) -> dict[str, str]:
        """The limit that new pods get, by workload, as the status says."""
        return {entry["workload"]: entry["limits"]["memory"] for entry in self.status().get("tuned", [])}

    def reasons(self) -> list[str]:
        """The reasons in the history, newest first."""
        return [change["reason"] for change in self.status().get("history", [])]

    def births(self) -> Counter[str]:
        """How many workers have which memory limit; `born` stands with those that admission gave it."""
        return Counter(_birth(pod) for pod in self.pods())

    def trial(self) -> str:
        """What a pod of the Deployment would be born with now: the API server is asked, and makes none."""
        pod = next(pod for pod in self.pods() if "worker-set" not in pod["metadata"]["labels"])
        template = self.get("deployment", "airflow-worker")["spec"]["template"]
        metadata = {key: pod["metadata"][key] for key in ("labels", "ownerReferences")}
        trial = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "trial", **metadata}, "spec": template["spec"]}
        argv = ["create", "--dry-run=server", "--filename=-", "--output=json"]
        return _birth(json.loads(self.kubectl(*argv, input=json.dumps(trial))))

    def strange(self) -> list[str]:
        """What in the workloads is not as Helm rendered it, or belongs to somebody else than Helm."""
        text = self.helm("get", "manifest", "airflow")
        found = []
        for live in self._workloads():
            kind, name = live["kind"], live["metadata"]["name"]
            (document,) = [part for part in text.split("---\n") if f"kind: {kind}\n" in part and f" {name}\n" in part]
            renamed = document.replace(f"  name: {name}\n", f"  name: {name}-as-rendered\n")
            argv = ["create", "--dry-run=server", "--filename=-", "--output=json"]
            if json.loads(self.kubectl(*argv, input=renamed))["spec"] != live["spec"]:
                found.append(f"{kind}/{name}: its spec is not what Helm rendered")
            for entry in live["metadata"]["managedFields"]:
                counted = entry["manager"] == "kube-controller-manager" and entry.get("subresource") == "status"
                if not counted and entry["manager"] not in {"helm", "helm3"}:
                    found.append(f"{kind}/{name}: has fields of {entry['manager']}")
            if "airflow-tuner" in json.dumps(live):
                found.append(f"{kind}/{name}: names airflow-tuner")
        return found

    def _workloads(self) -> list[Object]:
        text = self.kubectl("get", *WORKLOADS, "--output=json", "--show-managed-fields")
        return list(json.loads(text)["items"])


def _in_force(pod: Object) -> bool:
    states = pod.get("status", {}).get("containerStatuses") or [{}]
    return bool(states[0].get("resources") == pod["spec"]["containers"][0]["resources"])


def _birth(pod: Object) -> str:
    limit = pod["spec"]["containers"][0]["resources"]["limits"]["memory"]
    return f"{limit} born" if ORIGINAL in pod["metadata"].get("annotations", {}) else str(limit)


@dataclass(frozen=True)
class HelmTuner:
    """Our chart by one of the Helms, without its pod."""

    control_plane: ControlPlane
    version: Literal[3, 4]

    def helm(self, verb: str, *options: str) -> str:
        """Helm on the release."""
        chart = [] if verb in {"uninstall", "rollback"} else [CHART]
        argv: list[str | Path] = [verb, RELEASE, *chart, f"--namespace={NAMESPACE}", *options]
        return helm(self.control_plane, *argv, version=self.version)

    def install(self) -> None:
        """Install it; its metrics source does not answer."""
        self.helm("install", "--create-namespace", "--set=replicas=0", f"--set=metrics.sources.default.url={NOWHERE}")

    def upgrade(self, *options: str) -> str:
        """Upgrade it as docs/install.md says."""
        return self.helm("upgrade", "--reset-then-reuse-values", *options)


@dataclass(frozen=True)
class Tuned:
    """An Airflow whose workers were tuned, the chart that does it and the operator."""

    airflow: HelmAirflow
    tuner: HelmTuner
    operator: Operator


@contextmanager
def tuned(area: Area, control_plane: ControlPlane, namespace: str, version: Literal[3, 4]) -> Iterator[Tuned]:
    """Both charts by the same Helm, and an operator that has answered a kill of a worker of each kind."""
    tuner = HelmTuner(control_plane, version)
    tuner.install()
    try:
        control_plane.kubectl("create", "namespace", namespace)
        airflow = HelmAirflow(control_plane, namespace, area, version)
        airflow.upgrade()
        with Operator(area, control_plane, NOWHERE, [namespace], identity=namespace) as operator:
            airflow.policy(workers=[{"name": "*", "memory": {"min": "256Mi", "max": "64Gi"}}])
            airflow.until(lambda: "Ready" in str(airflow.status().get("conditions")), "a turn is done")
            airflow.kill_one_of_each()
            yield Tuned(airflow, tuner, operator)
    finally:
        tuner.helm("uninstall", "--ignore-not-found")
        control_plane.kubectl("delete", "namespace", namespace, "--wait=false", "--ignore-not-found")


@contextmanager
def born_meanwhile(airflow: HelmAirflow) -> Iterator[Counter[str]]:
    """Counts what pods are born with, one trial after the other, as long as the block lasts and once more."""
    found: Counter[str] = Counter()
    over = threading.Event()

    def count() -> None:
        while True:
            last = over.is_set()
            try:
                found[airflow.trial()] += 1
            except CommandFailed as error:
                found[str(error).splitlines()[-1]] += 1
            if last:
                return

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


@dataclass(frozen=True)
class Step:
    """One use of Helm. Where the template's memory changes with it, `limit` is what the workers then have."""

    name: str
    act: Callable[[Tuned], object]
    limit: str = ""
    ours: bool = False


def _steps(cycle: int) -> Sequence[Step]:
    if cycle % 2:
        limit, other, how = FIRST, 900, "upgrade"
        # The admission policy itself is another one then, as in a new version.
        changed = [f"--set=resources.limits.memory={300 + cycle}Mi", "--set=admission.failurePolicy=Fail"]
        ours = [
            Step("airflow-tuner: `upgrade`, failurePolicy", lambda now: now.tuner.upgrade(*changed), ours=True),
            Step("airflow-tuner: `rollback`", lambda now: now.tuner.helm("rollback"), ours=True),
        ]
    else:
        limit, other, how = 900, FIRST, "rollback"
        ours = [
            Step(
                f"airflow-tuner: `upgrade`, crds.enabled={value}",
                lambda now, value=value: now.tuner.upgrade(f"--set=crds.enabled={value}"),  # type: ignore[misc] # bound
                ours=True,
            )
            for value in ("false", "true")
        ]
    return (
        Step("Airflow: `upgrade`, an annotation", lambda now: now.airflow.upgrade(limit, 40 + cycle)),
        ours[0],
        Step("Airflow: `rollback` of the annotation", lambda now: now.airflow.rollback()),
        ours[1],
        Step(
            f"Airflow: `{how}` to {other} MiB",
            lambda now: now.airflow.upgrade(other) if cycle % 2 else now.airflow.rollback("1"),
            f"{other}Mi",
        ),
    )


def upgrades() -> str:
    """Twenty upgrades and rollbacks by each Helm, in turn with changes by the operator."""
    build(("control-plane", "helm", "helm3"))
    parts = []
    versions: tuple[Literal[3, 4], ...] = (4, 3)
    for version in versions:
        area = Area(f"helm-{version}")
        try:
            with ControlPlane(area) as plane, tuned(area, plane, f"beside-helm-{version}", version) as now:
                steps = [step for cycle in range(1, 5) for step in _steps(cycle)]
                rows = [_row(now, number, step) for number, step in enumerate(steps, start=1)]
                errors = now.operator.log().count("Traceback")
        finally:
            area.clean()
        head = "| | Helm | seconds | trial pods meanwhile | workers then | the operator's next change |"
        table = "\n".join([head, "|---" * 6 + "|", *rows])
        parts.append(f"## Helm {version}\n\n{table}\n\nErrors in the operator's log: {errors}.")
    return (
        "Two workers of a Deployment and two of a StatefulSet, limit 700 MiB, tuned after a kill of each; pods run in\n"
        "their status alone. seconds: with the rollout. trial pods meanwhile: what the API server says a pod of the\n"
        "Deployment would be born with, asked again and again while Helm works on our chart. workers then: their\n"
        "limits, `born` where admission gave it. After each use of Helm the workloads are compared with what Helm\n"
        "rendered, and their managedFields hold no manager but Helm's. The first difference, a lost decision or a pod\n"
        "born otherwise would have ended this.\n\n" + "\n\n".join(parts)
    )


def _row(now: Tuned, number: int, step: Step) -> str:
    airflow = now.airflow
    before, began = airflow.entries(), time.monotonic()
    with born_meanwhile(airflow) if step.ours else contextlib.nullcontext(Counter[str]()) as meanwhile:
        step.act(now)
    seconds = time.monotonic() - began
    if step.limit:
        airflow.until(lambda: not airflow.entries(), "the entries of the old template are withdrawn")
    workers = airflow.births()
    wanted = {step.limit} if step.limit else {f"{limit} born" for limit in before.values()}
    problems = airflow.strange()
    if not step.limit and airflow.entries() != before:
        problems.append(f"the entries were {before} and are {airflow.entries()}")
    if not step.ours and set(workers) != wanted:
        problems.append(f"workers were to be {wanted} and are {workers}")
    if set(meanwhile) - wanted:
        problems.append(f"pods were to be {wanted} and were {meanwhile}")
    if problems:
        raise ProgramFailed(f"{number}, {step.name}: {'; '.join(problems)}\n{now.operator.log()}")
    airflow.kill_one_of_each()
    change = airflow.status()["history"][0]
    told = f"{change['from'].get('limit')} -> {change['to'].get('limit')}"
    row = f"| {number} | {step.name} | {seconds:.1f} | {_told(meanwhile)} | {_told(workers)} | {told} |"
    say(row)
    return row


def _told(counted: Counter[str]) -> str:
    return ", ".join(f"{count} of {what}" for what, count in sorted(counted.items()))

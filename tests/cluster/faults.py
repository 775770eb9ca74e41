"""A stage for faults: a control plane with an audit log, the operator on it, and what it writes meanwhile."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.fronts import ApiFront, before_api_server
from testbed import operator_process
from testbed.controlplane import ControlPlane
from testbed.operator_process import NAMESPACE, RELEASE, Operator
from testbed.played_airflow import PlayedAirflow
from testbed.processes import Area

Object = dict[str, Any]

ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
READING = {"get", "list", "watch"}
TELLING = {
    *("update tuningpolicies/status", "create events", "patch events", "update leases"),
    *("create tuningcheckpoints", "update tuningcheckpoints"),
}
"""What an operator may write that changes nothing but what people read, and what it remembers itself."""
OPERATOR = "faulty"
WAIT_SECONDS = 40.0


def eventually(check: Callable[[], Any], what: Callable[[], str] | str, seconds: float = WAIT_SECONDS) -> float:
    """Wait until it holds; how long that took, in seconds."""
    begun = time.monotonic()
    while not check():
        took = time.monotonic() - begun
        assert took < seconds, f"waited {seconds:g} s in vain until {what if isinstance(what, str) else what()}"
        time.sleep(0.1)
    return time.monotonic() - begun


def note(name: str, *, said: float | None, recovered: float | None, writes: Mapping[str, int], seen: str) -> None:
    """Hand on what a test has measured, in seconds, as a line of JSON, where somebody collects that."""
    folder = os.environ.get("AIRFLOW_TUNER_FAULTS")
    if not folder:
        return
    told = {"fault": name, "said": said, "recovered": recovered, "writes": dict(writes), "seen": seen}
    Path(folder).mkdir(parents=True, exist_ok=True)
    with (Path(folder) / "faults.jsonl").open("a") as lines:
        lines.write(json.dumps({key: round(v, 1) if isinstance(v, float) else v for key, v in told.items()}) + "\n")


class Writes:
    """What the operator has written since, by the API server's own audit log."""

    def __init__(self, control_plane: ControlPlane) -> None:
        assert control_plane.audit_log is not None
        self._log = control_plane.audit_log
        self._from = self._log.stat().st_size

    def counted(self) -> Counter[str]:
        """How often each, e.g. `patch pods/resize`; also those that were refused."""
        with self._log.open("rb") as log:
            log.seek(self._from)
            lines = log.read().splitlines()
        found: Counter[str] = Counter()
        for line in lines:
            with suppress(ValueError):  # the last line may not be whole yet
                entry = json.loads(line)
                if entry["user"]["username"] == ACCOUNT and entry["verb"] not in READING:
                    what = entry["objectRef"]
                    parts = (what["resource"], what.get("subresource"))
                    found[f"{entry['verb']} {'/'.join(part for part in parts if part)}"] += 1
        return found

    def acts(self) -> set[str]:
        """Those that change more than what people read."""
        return set(self.counted()) - TELLING


@dataclass(frozen=True)
class Stage:
    """A control plane with an audit log, and the operator on it."""

    area: Area
    control_plane: ControlPlane
    operator: Operator
    api: ApiFront | None


@contextmanager
def staged(name: str, source: str, namespaces: Sequence[str], *, front: bool = False) -> Iterator[Stage]:
    """The whole stage, until the end of the block; `front`: the operator's way to the API server leads through one."""
    area = Area(name)
    try:
        with ControlPlane(area, audit=True) as plane:
            operator_process.install_chart(plane, source, "--set", "admission.failurePolicy=Fail")
            operator = Operator(area, plane, source, namespaces, OPERATOR)
            known = {"default": {"url": source, "timeoutSeconds": 2}}
            operator.sources.write_text(json.dumps({"sources": known}))
            if not front:
                with operator:
                    yield Stage(area, plane, operator, None)
                return
            with before_api_server(plane, area.path) as api:
                api.lead(area.path / f"{OPERATOR}.kubeconfig")
                with operator:
                    yield Stage(area, plane, operator, api)
    finally:
        area.clean()


def condition(airflow: PlayedAirflow, kind: str) -> Object:
    """One condition of the policy."""
    return next((item for item in airflow.status().get("conditions", []) if item["type"] == kind), {})


def events(airflow: PlayedAirflow, reason: str) -> list[Object]:
    """The policy's Events of a reason."""
    items = json.loads(airflow.kubectl("get", "events.events.k8s.io", "-o", "json"))["items"]
    return [item for item in items if item["reason"] == reason and item["regarding"]["kind"] == "TuningPolicy"]


def times(found: Sequence[Object]) -> int:
    """How often Events were told."""
    return sum((item.get("series") or {}).get("count", 1) for item in found)


def deployed(airflow: PlayedAirflow, replicas: int = 1) -> None:
    """Workers that run, with 700 MiB at most."""
    airflow.deploy("worker", replicas, {"requests": {"memory": "512Mi"}, "limits": {"memory": "700Mi"}})
    eventually(lambda: len(airflow.pods()) == replicas, "the pods are there")
    airflow.run_all()


def touch(airflow: PlayedAirflow) -> None:
    """Ask for a turn now: the operator's usual one may be 30 s away. Returns when it is done."""
    policy = airflow.get("tuningpolicy", "airflow")
    lag = (policy["spec"].get("objectives") or {}).get("queueLagSeconds", 30) + 1
    patch = json.dumps({"spec": {"objectives": {"queueLagSeconds": lag}}})
    airflow.kubectl("patch", "tuningpolicy", "airflow", "--type=merge", "--patch", patch)
    wanted = policy["metadata"]["generation"] + 1
    eventually(lambda: airflow.status().get("observedGeneration", 0) >= wanted, "the turn that was asked for is done")

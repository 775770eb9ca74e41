"""An operator that is killed at any point of a turn, and what is found afterwards."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from testbed import dying_operator
from testbed.played_airflow import PlayedAirflow

KILLED = -9


@dataclass(frozen=True)
class Outcome:
    """What a user finds."""

    limits: frozenset[str]
    """In the specs of the pods."""
    history: tuple[str, ...]
    """The limits that were decided, newest first."""
    events: tuple[str, ...]
    """Names of the Events about the decision."""
    counted: str
    """Counts of Events that were told again."""
    remembered: tuple[str, ...]
    """The limits in the checkpoint's history."""


WANTED = Outcome(frozenset({"1050Mi"}), ("1050Mi",), ("the decision's",), "", ("1050Mi",))
"""Whatever the point was: a kill under 700 MiB, answered once."""


def turn(airflow: PlayedAirflow, kubeconfig: Path, point: str, source: str = "") -> tuple[int, tuple[str, ...]]:
    """One turn in a process of its own, with a Prometheus or none: (how it ended, the calls it made)."""
    argv = [sys.executable, str(Path(dying_operator.__file__)), str(kubeconfig), airflow.namespace, point, source]
    done = subprocess.run(argv, check=False, timeout=60, capture_output=True, text=True)
    if done.returncode not in {0, KILLED}:
        raise AssertionError(done.stderr)
    return done.returncode, tuple(done.stdout.splitlines())


def outcome(airflow: PlayedAirflow) -> Outcome:
    """What is found now."""
    status = airflow.status()
    decision = status["tuned"][0]["decision"]
    names = airflow.kubectl("get", "events.events.k8s.io", "-o", "jsonpath={.items[*].metadata.name}").split()
    told = tuple("the decision's" for name in names if decision in name)
    counted = airflow.kubectl("get", "events.events.k8s.io", "-o", "jsonpath={.items[*].series.count}").strip()
    history = tuple(change["to"]["limit"] for change in status["history"])
    memory = airflow.get("tuningcheckpoint", "airflow")["memory"]
    remembered = tuple(change["to"]["limit"] for change in memory["history"])
    return Outcome(frozenset(airflow.limits()), history, told, counted, remembered)

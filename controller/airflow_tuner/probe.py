"""Liveness probes that run a command of Airflow, as the official chart's do: each starts a whole Airflow. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_tuner.quantity import MEBIBYTE


@dataclass(frozen=True, slots=True)
class Command:
    """A command that answers whether a component lives, and what it takes."""

    what: str
    asked_by: re.Pattern[str]
    """Its command line."""
    loaded: float
    """Seconds until its answer on a busy machine."""
    cpu: float
    """Seconds of CPU."""
    memory: int
    """Bytes, for as long as it runs."""


COMMANDS = (
    Command("airflow jobs check", re.compile(r"\bairflow\W+jobs\W+check\b"), 9.1, 1.9, 114 * MEBIBYTE),
    Command("celery inspect ping", re.compile(r"\bcelery\b.*\binspect\W+ping\b"), 12.7, 2.1, 130 * MEBIBYTE),
)
"""Measured on Airflow 3.3.2 with two cores: 6.7 to 9.1 s and 12.7 s under load, 1.9 to 2.2 s and 2.1 to 2.3 s of CPU.
Airflow 2.11.2 takes somewhat less (5.9 s; 1.6 s and 1.1 s of CPU)."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A liveness probe, in seconds."""

    command: Command
    timeout: int
    failures: int
    """Times in a row that it fails before the container is restarted."""

    @property
    def what(self) -> str:
        """Its command, in short."""
        return self.command.what

    @property
    def memory(self) -> int:
        """Bytes that it takes of the container's memory."""
        return self.command.memory

    @property
    def cpu(self) -> float:
        """Seconds of CPU that it takes."""
        return self.command.cpu

    def by_cpu(self, limit: float | None) -> bool:
        """Whether a CPU limit, in cores, makes it slower than a busy machine does."""
        return limit is not None and limit > 0 and self.cpu / limit > self.command.loaded

    def needed(self, limit: float | None) -> float:
        """Seconds that it needs on a busy machine, under a CPU limit in cores."""
        return self.cpu / limit if limit is not None and self.by_cpu(limit) else self.command.loaded


def read(container: Mapping[str, Any]) -> Probe | None:
    """The liveness probe of a container in a template, if it runs one of these commands."""
    told = container.get("livenessProbe") or {}
    words = " ".join(str(word) for word in (told.get("exec") or {}).get("command") or [])
    command = next((known for known in COMMANDS if known.asked_by.search(words)), None)
    if command is None:
        return None
    # Kubernetes' defaults, where the API server has not put them in.
    return Probe(command, int(told.get("timeoutSeconds") or 1), int(told.get("failureThreshold") or 3))

"""The status of a policy, as it was left, for people at a terminal. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from airflow_tuner import api, explain
from airflow_tuner.errors import Misconfigured

HISTORY = 10


def text(document: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """Conditions, targets, findings and the last changes. `about`: name and mode of the policy."""
    try:
        told = api.Status.model_validate(document)
    except ValidationError as error:
        raise Misconfigured("The status in the state file cannot be read: another version has written it.") from error
    paused = ", paused" if about.get("paused") else ""
    line = f"Airflow {told.airflow_version}" if told.airflow_version else "Airflow of unknown version"
    mode = f"{about.get('mode', 'unknown')}{paused}"
    looked = f" Last looked at {_moment(about['looked'])}." if "looked" in about else ""
    parts = [explain.wrapped(f"{line}, policy {about.get('name', '')}, mode {mode}: {told.summary}.{looked}")]
    rows = [("TARGET", "CONTAINERS", "IN FORCE", "DECIDED", "PEAK")]
    rows += [
        (item.name, f"{item.pods}", _shown(item.running), _shown(item.recommended), item.peak or "unknown")
        for item in told.targets
    ]
    if told.targets:
        parts.append(explain.table(rows))
        parts += [explain.wrapped(f"{item.name}: {item.why}") for item in told.targets if item.why]
    untrue = [item for item in told.conditions if item.status != "True" and item.type != "RestartNeeded"]
    waits = [item for item in told.conditions if (item.type, item.status) == ("RestartNeeded", "True")]
    parts += [
        explain.wrapped(f"{item.type} is {item.status} ({item.reason}): {item.message}") for item in untrue + waits
    ]
    if told.findings:
        parts.append("Findings, worst first:")
        parts += [
            explain.wrapped(f"{item.severity} {item.reason} {item.target}: {item.message}", "  ")
            for item in told.findings
        ]
    if told.history:
        parts.append("The last changes, the newest first:")
        parts += [
            explain.wrapped(f"{_moment(item.time)} {item.target} {item.reason}: {item.message}", "  ")
            for item in told.history[:HISTORY]
        ]
    return "\n\n".join(parts)


def _shown(values: api.Values) -> str:
    """The limits, and what of slots and parsing is known."""
    parts = [values.limit or "no limit"]
    parts += [f"{values.cpu_limit} CPU"] if values.cpu_limit else []
    parts += [f"{values.concurrency} slots"] if values.concurrency else []
    parts += [f"every {values.parsing_interval_seconds} s"] if values.parsing_interval_seconds else []
    parts += [f"{values.parsing_processes} processes"] if values.parsing_processes else []
    return ", ".join(parts)


def _moment(time: str) -> str:
    return f"{datetime.fromisoformat(time):%Y-%m-%d %H:%M:%S %Z}"

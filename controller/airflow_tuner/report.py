"""What is wrong with an Airflow, as a report for people and as a document for programs. Pure."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from airflow_tuner import explain
from airflow_tuner.model import Finding, Observation, Severity
from airflow_tuner.namings import NAMINGS
from airflow_tuner.sentence import counted, short

VERSION = 1
"""Of the document; a change that breaks readers raises it."""


def text(policy: str, seen: Observation, findings: tuple[Finding, ...]) -> str:
    """The findings, worst first, and what they rest on. `policy`: namespace and name."""
    line = f"Airflow {seen.line}" if seen.line else "Airflow of unknown version"
    parts = [f"{line}, policy {policy}, {seen.at:%Y-%m-%d %H:%M:%S %Z}. Nothing is written."]
    if findings:
        parts.append(f"{_counted(findings)}, worst first:")
        parts += [_finding(seen.at, item) for item in findings]
    else:
        parts.append("Nothing is wrong, as far as can be seen.")
    parts.append(explain.section("What was looked at", _looked_at(seen)))
    return "\n\n".join(parts)


def document(policy: str, seen: Observation, findings: tuple[Finding, ...]) -> dict[str, Any]:
    """The same for programs. Times are ISO 8601."""
    return {
        "version": VERSION,
        "policy": policy,
        "at": seen.at.isoformat(),
        "airflow": seen.line,
        "metricsNaming": seen.naming,
        "executors": list(seen.executors.names),
        "findings": [
            {
                "reason": item.reason,
                "severity": str(item.severity),
                "target": item.target,
                "since": item.since.isoformat(),
                "message": item.message,
            }
            for item in findings
        ],
        "lookedAt": dict(_looked_at(seen)),
    }


def _finding(now: datetime, item: Finding) -> str:
    ago = max(0, round((now - item.since).total_seconds()))
    head = f"{item.severity} {item.reason} {short(item.target)}, {_lasting(ago)}"
    return f"{head}\n{explain.wrapped(item.message, '  ')}"


def _lasting(seconds: int) -> str:
    """How long it is known."""
    if not seconds:
        return "seen now"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"since {seconds // size} {unit}"
    return f"since {seconds} s"


def _counted(findings: tuple[Finding, ...]) -> str:
    severities = [item.severity for item in findings]
    counts = [f"{severities.count(one)} {one}" for one in Severity if one in severities]
    return f"{counted(len(findings), 'finding', 'findings')} ({', '.join(counts)})"


def _looked_at(seen: Observation) -> Iterator[tuple[str, str]]:
    """What the findings rest on: (what, in which state)."""
    told = [f"{workload.target} ({counted(len(workload.living), 'pod', 'pods')})" for workload in seen.workloads]
    yield "workloads", ", ".join(told) or "none"
    yield "metrics", seen.metrics.message
    yield "airflow", _airflow(seen)
    yield "executor", executor_of(seen)
    yield "room", explain.room_of(seen)
    if seen.calendar is not None:
        yield "calendar", seen.calendar or f"{counted(len(seen.due), 'rare run is', 'rare runs are')} due within a day"
    if not seen.executors.celery:
        yield "broker", "not asked: no Celery worker runs tasks"
        return
    yield "broker", "not named or not asked" if seen.broker is None else seen.broker or "it answers"


def executor_of(seen: Observation) -> str:
    """What runs the tasks, and where that is known from."""
    runs = seen.executors
    return f"{runs.told} ({runs.source})" if runs else "not known: taken for the CeleryExecutor"


def _airflow(seen: Observation) -> str:
    tasks, files = seen.airflow.tasks, seen.airflow.parsing
    if seen.airflow.problem:
        return seen.airflow.problem
    told = []
    if tasks is not None:
        told.append(f"{counted(tasks.waiting_in(None), 'task waits', 'tasks wait')} and {tasks.running_in(None)} run")
    if files is not None:
        told.append(f"{counted(files.files, 'DAG file is', 'DAG files are')} parsed")
    if told and seen.naming in NAMINGS:
        told.append(f"as {NAMINGS[seen.naming].told} names them (metrics.naming: {seen.naming})")
    return ", ".join(told) or "not asked: the policy tunes neither slots nor parsing"

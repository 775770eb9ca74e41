"""A story of the fleet model with the tuner in it, told day by day: what it would do, and what comes of it."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from airflow_tuner import api, policies, quantity, transcript
from airflow_tuner.chronicle import Chronicle
from airflow_tuner.fleet.scenarios import Scenario
from airflow_tuner.fleet.weeks import Weeks
from airflow_tuner.history import History
from airflow_tuner.lived import AS_SET, Lived
from airflow_tuner.model import Change, Memory
from airflow_tuner.outcome import outcome
from airflow_tuner.played import Played
from airflow_tuner.quantity import readable
from airflow_tuner.sentence import counted

Object = dict[str, Any]

POLICY = f"""\
apiVersion: {api.GROUP}/{api.VERSION}
kind: {api.KIND}
metadata: {{name: simulated, namespace: airflow}}
spec:
  mode: Enforce
  airflow: {{release: airflow}}
  objectives: {{queueLagSeconds: 60, dagFreshnessSeconds: 60}}
  workers:
  - name: default
    memory: {{min: 512Mi, max: 16Gi}}
    concurrency: {{min: 2, max: 64}}
  dagProcessor:
    memory: {{min: 512Mi, max: 2Gi}}
    parsing: {{intervalSeconds: {{min: 10, max: 600}}, processes: {{min: 1, max: 16}}, cpu: "8"}}
  celery: {{brokerSecretRef: {{name: broker-url}}}}
  changes: {{restarts: {{allowed: true}}}}
"""
"""What a simulation is run with where no other is given."""

LOOKED = 3
"""Days that somebody looks at before a limit is set."""

CAREFUL = 2.0
"""Times the peak of those days that a careful user sets, for what these days did not show."""

STEP = 256
"""MiB that a person rounds up to."""

QUIET = 2.0
"""Seconds between two words on how far it is."""

TOLD = 6
"""Changes of a day that are told each."""


def parsed(text: str) -> Object:
    """A policy as a document."""
    document: Object = yaml.safe_load(text)
    return document


def seen_peak(scenario: Scenario, seed: int) -> float:
    """MiB that the fullest worker took in the days that somebody looked at, without a limit."""
    weeks, peak = Weeks(scenario, seed), 0.0
    while weeks.day < LOOKED:
        weeks.step()
        peak = max(peak, *(weeks.in_use(worker) for worker in weeks.workers))
    return peak


def rounded(mebibytes: float) -> int:
    """As a person writes it."""
    return math.ceil(mebibytes / STEP) * STEP


def careful(scenario: Scenario, seed: int) -> int:
    """MiB of the limit, and of the request, that a careful user gives each worker."""
    return rounded(CAREFUL * seen_peak(scenario, seed))


@dataclass(slots=True)
class Day:
    """What has come of one day."""

    number: int
    changes: list[Change] = field(default_factory=list)
    findings: dict[str, int] = field(default_factory=dict)
    """Minutes that each held."""
    peak: float = 0.0
    """MiB of the fullest worker."""
    busy: int = 0
    late_minutes: int = 0
    kills: int = 0
    failed: int = 0
    requested: float = 0.0
    """GiB hours."""
    limit: float = 0.0


def chronicle_of(scenario: Scenario, seed: int, policy: Object) -> Chronicle:
    """What `days` notes for a report."""
    spec, _ = policies.parsed(policy)
    return Chronicle(
        f"{scenario.name} (seed {seed})",
        f"{scenario.told} A modelled Airflow of {scenario.workers} workers with {scenario.slots} slots each, with "
        f"airflow-tuner in it in mode {spec.mode}.",
        spec.objectives.queue_lag_seconds,
        lived=True,
        notes=[
            "The tasks are invented; what they cost is drawn around what was measured on Airflow 3.3.2.",
            f"The first {counted(scenario.warm_up, 'day is', 'days are')} there to learn from.",
            AS_SET,
        ],
    )


def days(
    scenario: Scenario,
    seed: int,
    policy: Object,
    progress: Callable[[str], None],
    template: int | None = None,
    into: Chronicle | None = None,
) -> Iterator[Day]:
    """Day by day. `template`: MiB of the workers' memory, else what a careful user gives them. `into`: for a report."""
    spec, prior = policies.parsed(policy)
    identity = policy["metadata"].get("uid", "")
    size = template or careful(scenario, seed)
    weeks = Weeks(scenario, seed, size, size, objective=spec.objectives.queue_lag_seconds)
    played = Played(weeks, Memory(size * quantity.MEBIBYTE, size * quantity.MEBIBYTE))
    told = time.monotonic()
    histories: Mapping[str, History] = {}
    noted = None if into is None else Lived(spec, into)
    total = scenario.warm_up + scenario.days
    for number in range(total):
        day, tally = Day(number), weeks.tally
        kills, failed = tally.container_kills + tally.process_kills, tally.failed_tries
        for _ in range(24 * 60):
            weeks.step()
            seen = replace(played.look(), histories=histories)
            came = outcome(spec, seen, prior, identity=identity)
            prior, histories = came.status, came.seen.histories
            if spec.mode is api.Mode.ENFORCE:
                played.carry_out(transcript.answer(seen, came))
            _count(day, weeks, came.decision.changes, [finding.reason for finding in came.findings])
            if noted is not None:
                noted.note(came.seen, came.decision.changes, came.findings)
            if time.monotonic() - told >= QUIET:
                told = time.monotonic()
                progress(f"{scenario.name}: day {weeks.day:.1f} of {total}")
        day.kills = tally.container_kills + tally.process_kills - kills
        day.failed = tally.failed_tries - failed
        yield day
    if into is not None:
        into.close()


def _count(day: Day, weeks: Weeks, changes: tuple[Change, ...], findings: list[str]) -> None:
    living = weeks.living
    day.changes += changes
    for reason in findings:
        day.findings[reason] = day.findings.get(reason, 0) + 1
    day.peak = max(day.peak, *(weeks.in_use(worker) for worker in living))
    day.busy = max(day.busy, weeks.running)
    day.late_minutes += weeks.wait > weeks.objective
    day.requested += sum(worker.request for worker in living) / 1024 / 60
    day.limit += sum(worker.limit for worker in living) / 1024 / 60


def told(day: Day, scenario: Scenario) -> str:
    """A day in a few lines."""
    unscored = " (to learn from)" if day.number < scenario.warm_up else ""
    lines = [
        f"Day {day.number}{unscored}: fullest worker {readable(int(day.peak * quantity.MEBIBYTE))}, "
        f"{counted(day.busy, 'slot', 'slots')} busy at most; requested {day.requested:.0f}, limits {day.limit:.0f} GiB "
        f"hours; {counted(day.kills, 'kill', 'kills')}, {counted(day.failed, 'failed try', 'failed tries')}; late in "
        f"{counted(day.late_minutes, 'minute', 'minutes')}."
    ]
    lines += [f"  {change.reason}: {change.message}" for change in day.changes[:TOLD]]
    if len(day.changes) > TOLD:
        lines.append(f"  and {len(day.changes) - TOLD} more changes")
    if day.findings:
        parts = [f"{reason} {minutes} min" for reason, minutes in sorted(day.findings.items(), key=lambda one: -one[1])]
        lines.append(f"  Found: {', '.join(parts)}.")
    return "\n".join(lines)

"""Observations in, decisions out, one for one: the loop for programs that play the world themselves.

Nothing is read but the lines and the policy, and nothing is written but the answers. What the operator remembers from
turn to turn in the policy's status is carried from line to line.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from airflow_tuner import policies, transcript
from airflow_tuner.errors import Misconfigured
from airflow_tuner.history import History
from airflow_tuner.outcome import outcome
from airflow_tuner.sentence import counted

Object = dict[str, Any]

QUIET = 2.0
"""Seconds after which it is told how far it has come, and between two such sentences."""


def answers(policy: Object, lines: Iterable[str], progress: Callable[[str], None]) -> Iterator[str]:
    """One answer for each line that is not blank; `Misconfigured` at the first that cannot be read."""
    spec, prior = policies.parsed(policy)
    metadata = policy["metadata"]
    identity, generation = metadata.get("uid", ""), metadata.get("generation", 0)
    paused = policies.paused(policy)
    begun = told = time.monotonic()
    last: datetime | None = None
    histories: Mapping[str, History] = {}
    done = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        seen = transcript.read(line, number)
        if last is not None and seen.at < last:
            msg = f"line {number}: observation.at: {seen.at.isoformat()} is before the time of the line before it"
            raise Misconfigured(msg)
        seen = replace(seen, histories={**histories, **seen.histories})
        came = outcome(spec, seen, prior, identity=identity, paused=paused, generation=generation)
        prior, histories, last, done = came.status, came.seen.histories, seen.at, done + 1
        yield transcript.answered(seen, came)
        now = time.monotonic()
        if now - told >= QUIET:
            told = now
            turns = counted(done, "observation", "observations")
            progress(f"{turns} so far, as of {seen.at:%Y-%m-%d %H:%M}, {done / (now - begun):.0f} per second")

"""Observations and answers as lines of JSON, version 1. Pure.

The form is that of the frozen dataclasses of `model` and `telemetry`, with the names of their fields in camelCase:
bytes, seconds, and times as ISO 8601 text with their offset. A field that may be absent has its default where it is; a
field that is not known is an error.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from airflow_tuner import api
from airflow_tuner.errors import Misconfigured
from airflow_tuner.model import Change, Finding, Observation, TargetDecision, Values
from airflow_tuner.outcome import Outcome
from airflow_tuner.sentence import fitted

VERSION: Literal[1] = 1

_MAYBE_NAIVE = re.compile(r'"\d{4}-\d\d-\d\d[^"+Zz]{0,32}"')
"""A text that may be a time without an offset; looking at every field of every line would take most of the time."""

_TOLD = 3
"""Errors of one line that are told."""


@dataclass(frozen=True, slots=True)
class Target:
    """What one workload should have, and why."""

    target: str
    """`scheduler`, `dag-processor`, `triggerer`, `api-server` or `worker/<name>`."""
    workload: str
    """Kind and name of the workload."""
    bounds: str
    """The part of the spec whose bounds hold, e.g. `workers/default`."""
    desired: Values
    """What it should have, whether that is new or not."""
    why: str
    change: Change | None = None
    """What changes now; in mode Recommend only what is recommended changes."""
    tuned: api.Tuned | None = None
    """What new pods get at admission, as in `status.tuned` of a policy; absent: what the template says."""
    slots_decided: bool = False
    """The number of slots is decided, not only stated in the template: workers that run are held to it."""
    rooms: Mapping[str, int] = field(default_factory=dict)
    """By pod: the most that its limit may be raised to, where its node has no room for what is desired."""


@dataclass(frozen=True, slots=True)
class Waits:
    """A pod that waits for its next creation."""

    pod: str
    what: str
    """What it waits for."""
    blocked: str = ""
    """Why it is not restarted now; empty: it may be, if it is the first."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes of one observation."""

    at: datetime
    """Of the observation."""
    targets: tuple[Target, ...]
    """The whole desired state, not only what is new."""
    released: tuple[Change, ...] = ()
    """Targets that are given back to their template."""
    findings: tuple[Finding, ...] = ()
    """What is wrong, worst first."""
    waiting: tuple[Waits, ...] = ()
    """Pods that wait for a restart, those that may be restarted first."""


class _Line(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel,
        allow_inf_nan=False,
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
    )

    version: Literal[1]
    """Of this form: 1."""


class ObservationLine(_Line):
    """A line that goes in."""

    observation: Observation


class AnswerLine(_Line):
    """A line that comes out."""

    decision: Answer


def read(text: str, number: int) -> Observation:
    """The observation in a line; `Misconfigured` names the line (`number`) and the field that is wrong."""
    try:
        seen = ObservationLine.model_validate_json(text).observation
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        told = [_told(item) for item in found[:_TOLD]]
        if len(found) > _TOLD:
            told.append(f"and {len(found) - _TOLD} more like that")
        msg = f"line {number}: {'; '.join(told)}"
        raise Misconfigured(msg) from error
    naive = next(_naive(seen, "observation"), None) if _MAYBE_NAIVE.search(text) else None
    if naive is not None:
        msg = f"line {number}: {naive}: a time needs its offset, as in 2026-11-28T12:00:00Z"
        raise Misconfigured(msg)
    return seen


def written(seen: Observation) -> str:
    """An observation as a line, without what is as by default."""
    return ObservationLine(version=VERSION, observation=seen).model_dump_json(by_alias=True, exclude_defaults=True)


def answer(seen: Observation, came: Outcome) -> Answer:
    """What comes of an observation, without what was known before."""
    waiting = tuple(Waits(item.pod.name, item.what, item.blocked) for item in came.waiting)
    targets = tuple(_target(item) for item in came.decision.targets)
    return Answer(seen.at, targets, came.decision.released, came.findings, waiting)


def answered(seen: Observation, came: Outcome) -> str:
    """The same as a line."""
    line = AnswerLine(version=VERSION, decision=answer(seen, came))
    return line.model_dump_json(by_alias=True, exclude_defaults=True)


def read_answer(text: str) -> Answer:
    """The answer in a line, for a program that closes the loop."""
    return AnswerLine.model_validate_json(text).decision


def schema() -> Mapping[str, Any]:
    """The JSON schemas of both kinds of line."""
    return {
        "observation": ObservationLine.model_json_schema(by_alias=True),
        "decision": AnswerLine.model_json_schema(by_alias=True),
    }


def _target(item: TargetDecision) -> Target:
    workload = item.workload
    return Target(
        workload.target,
        workload.label,
        item.bounds,
        item.desired,
        item.why,
        item.change,
        item.tuned,
        item.slots_decided,
        item.rooms,
    )


def _told(item: ErrorDetails) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        return fitted(f"{where}: there is no such field", 300)
    if item["type"] in {"missing", "missing_argument"}:
        return fitted(f"{where}: it must be there", 300)
    return fitted(f"{where}: {item['msg']}" if where else item["msg"], 300)


def _naive(value: object, where: str) -> Iterator[str]:
    """Where a time without an offset stands."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            yield where
    elif is_dataclass(value) and not isinstance(value, type):
        for one in fields(value):
            yield from _naive(getattr(value, one.name), f"{where}.{to_camel(one.name)}")
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            yield from _naive(item, f"{where}.{number}")

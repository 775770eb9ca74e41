"""What comes of one observation: findings, decision, pods that wait, and the status that remembers it. Pure.

The operator, `plan`, `replay` and `simulate` all go through here, so that none of them decides otherwise.
"""

from dataclasses import dataclass

from airflow_tuner import api, restarts, status
from airflow_tuner.decide import decide
from airflow_tuner.diagnose import diagnose
from airflow_tuner.learning import learned
from airflow_tuner.model import Decision, Finding, Observation


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that one turn came to."""

    seen: Observation
    """The observation, with what it shows of the present hour in its histories."""
    findings: tuple[Finding, ...]
    decision: Decision
    waiting: tuple[restarts.Waiting, ...]
    status: api.Status
    """What the next turn remembers of it."""


def outcome(
    spec: api.Spec,
    seen: Observation,
    prior: api.Status,
    *,
    identity: str = "",
    paused: bool = False,
    generation: int = 0,
) -> Outcome:
    """Diagnose and decide. `identity`: the policy's UID; `prior`: the status that the last turn left."""
    seen = learned(spec, prior, seen)
    findings = diagnose(spec, seen, prior)
    decision = decide(spec, seen, prior, identity=identity, paused=paused)
    waiting = restarts.waiting(spec, seen, decision)
    new = status.rendered(prior, spec, seen, findings, decision, waiting, generation)
    return Outcome(seen, findings, decision, waiting, new)

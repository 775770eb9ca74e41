"""What else changes the workloads of an Airflow: HorizontalPodAutoscalers, VerticalPodAutoscalers, KEDA. Pure."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

Object = Mapping[str, Any]

HORIZONTAL, VERTICAL, KEDA = "HorizontalPodAutoscaler", "VerticalPodAutoscaler", "ScaledObject"
MEMORY, CPU = "memory", "cpu"
OFF, INITIAL = "Off", "Initial"
"""Update modes of a VerticalPodAutoscaler: it only recommends; it changes new pods only."""
PAUSED = "autoscaling.keda.sh/paused"
_SLOTS = re.compile(r"\bcount\s*\(\s*\*\s*\)\s*(?:::\s*\w+\s*)?/\s*(\d{1,6})\b(?!\.)", re.IGNORECASE)
"""In the query of the official chart: `SELECT ceil(COUNT(*)::decimal / 16) FROM task_instance WHERE ...`."""


@dataclass(frozen=True, slots=True)
class Autoscaler:
    """An object that changes a workload's replicas or its pods' resources."""

    kind: str
    name: str
    target: str
    """Kind and name of the workload."""
    mode: str = ""
    """Update mode, of a VerticalPodAutoscaler."""
    by_memory: bool = False
    """It decides replicas by memory in use as a share of the request."""
    memory_of: Mapping[str, bool] = field(default_factory=dict)
    """By container, `*` for the others: whether a VerticalPodAutoscaler changes its memory."""
    by_cpu: bool = False
    """It decides replicas by CPU in use as a share of the request."""
    cpu_of: Mapping[str, bool] = field(default_factory=dict)
    """By container, `*` for the others: whether a VerticalPodAutoscaler changes its CPU."""
    slots: int | None = None
    """Tasks that KEDA counts for one worker; `None`: its query does not show it."""

    def changes_memory(self, container: str) -> bool:
        """Whether it changes the memory of this container in new pods, at least."""
        own = self.memory_of.get(container, self.memory_of.get("*", True))
        return self.kind == VERTICAL and self.mode != OFF and own

    def rules_memory(self, container: str) -> bool:
        """Whether it changes the memory of this container in pods that run."""
        return self.changes_memory(container) and self.mode != INITIAL

    def rules_cpu(self, container: str) -> bool:
        """Whether it changes the CPU of this container, or counts replicas by its share of the request."""
        own = self.cpu_of.get(container, self.cpu_of.get("*", True))
        return self.by_cpu or (self.kind == VERTICAL and self.mode != OFF and own)


def scaler(found: Iterable[Autoscaler]) -> str:
    """What decides the replicas among them; empty where nothing does."""
    return next((f"{item.kind} {item.name}" for item in found if item.kind in {HORIZONTAL, KEDA}), "")


def read(
    horizontals: Iterable[Object], verticals: Iterable[Object], scaled: Iterable[Object]
) -> tuple[Autoscaler, ...]:
    """Out of the API server's lists; without what KEDA has paused, and with what it keeps told as KEDA's."""
    made = (_each(_horizontal, horizontals), _each(_vertical, verticals), _each(_scaled, scaled))
    return tuple(found for kind in made for found in kind if found is not None)


def _each(make: Callable[[Object], Autoscaler | None], items: Iterable[Object]) -> Iterator[Autoscaler | None]:
    """Each by itself: one that cannot be understood hides no other."""
    for item in items:
        with suppress(KeyError, TypeError, AttributeError, ValueError):
            yield make(item)


def _horizontal(item: Object) -> Autoscaler | None:
    if _kept_by_keda(item):
        return None
    sources = [source for metric in item["spec"].get("metrics") or [] if (source := _resource(metric)) is not None]
    shares = {source.get("name") for source in sources if (source.get("target") or {}).get("type") == "Utilization"}
    target = _target(item["spec"].get("scaleTargetRef"))
    return Autoscaler(HORIZONTAL, _name(item), target, by_memory=MEMORY in shares, by_cpu=CPU in shares)


def _resource(metric: Object) -> Object | None:
    return metric.get("resource") or metric.get("containerResource")


def _vertical(item: Object) -> Autoscaler:
    spec = item.get("spec") or {}
    policies = (spec.get("resourcePolicy") or {}).get("containerPolicies") or []
    return Autoscaler(
        VERTICAL,
        _name(item),
        _target(spec.get("targetRef")),
        # Kubernetes' own default.
        mode=str((spec.get("updatePolicy") or {}).get("updateMode") or "Auto"),
        memory_of=_controlled(policies, MEMORY),
        cpu_of=_controlled(policies, CPU),
    )


def _controlled(policies: Iterable[Object], resource: str) -> dict[str, bool]:
    """By container, whether its resource is changed."""
    return {
        str(policy.get("containerName", "*")): policy.get("mode") != OFF
        and resource in (policy.get("controlledResources") or [resource])
        for policy in policies
    }


def _scaled(item: Object) -> Autoscaler | None:
    if _paused(item):
        return None
    spec = item.get("spec") or {}
    triggers = spec.get("triggers") or []
    told = [str((trigger.get("metadata") or {}).get("query", "")) for trigger in triggers]
    # Where the query gives another unit than workers, what it counts for one is not in the query.
    plain = all((trigger.get("metadata") or {}).get("targetQueryValue", "1") in {"1", "1.0"} for trigger in triggers)
    found = [int(match[1]) for query in told if "task_instance" in query and (match := _SLOTS.search(query))]
    shares = {each.get("type") for each in triggers if each.get("metricType", "Utilization") == "Utilization"}
    slots = found[0] if plain and len(found) == 1 and found[0] else None
    return Autoscaler(
        KEDA,
        _name(item),
        _target(spec.get("scaleTargetRef")),
        by_memory=MEMORY in shares,
        slots=slots,
        by_cpu=CPU in shares,
    )


def _kept_by_keda(item: Object) -> bool:
    return any(owner.get("kind") == KEDA for owner in item["metadata"].get("ownerReferences") or [])


def _paused(item: Object) -> bool:
    return (item["metadata"].get("annotations") or {}).get(PAUSED) == "true"


def _name(item: Object) -> str:
    return str(item["metadata"]["name"])


def _target(reference: Object | None) -> str:
    """As `Workload.label`; KEDA means a Deployment where it names no kind."""
    found = reference or {}
    return f"{found.get('kind') or 'Deployment'}/{found.get('name', '')}"

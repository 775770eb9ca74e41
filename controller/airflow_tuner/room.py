"""What a namespace and its nodes have room for: quotas, limit ranges, allocatable memory. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from airflow_tuner import api, quantity

Object = Mapping[str, Any]

DECISION = f"{api.GROUP}/decision"
"""Annotation of a pod that was born tuned."""

REQUESTS, LIMITS = "requests.memory", "limits.memory"
_HARD = {"memory": REQUESTS, REQUESTS: REQUESTS, LIMITS: LIMITS}
_SCOPES = {"NotTerminating", "NotBestEffort"}
"""Scopes of a quota that hold for every pod of Airflow's workloads with memory of its own."""
_KINDS = {"Container", "Pod"}


@dataclass(frozen=True, slots=True)
class Quota:
    """One figure of a ResourceQuota that counts memory."""

    name: str
    figure: str
    """`requests.memory` or `limits.memory`."""
    hard: int
    """Bytes that all pods of the namespace may have together."""
    used: int
    """Bytes that they have."""


@dataclass(frozen=True, slots=True)
class Range:
    """What a LimitRange says about the memory of a container, or of all containers of a pod."""

    name: str
    kind: str
    """`Container` or `Pod`."""
    most: int | None = None
    """Bytes that a limit may be at most."""
    least: int | None = None
    """Bytes that a request must be at least."""
    ratio: float | None = None
    """So many times its request a limit may be."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node that runs pods of this Airflow."""

    name: str
    allocatable: int
    """Bytes of memory that pods may request on it."""
    held: int
    """Bytes that all but Airflow's main containers request on it; pods that were born tuned count with their limits."""


@dataclass(frozen=True, slots=True)
class Room:
    """What was seen of all that. What was not is left out, and bounds nothing."""

    quotas: tuple[Quota, ...] = ()
    ranges: tuple[Range, ...] = ()
    nodes: tuple[Node, ...] = ()
    """Those that run pods of this Airflow, as far as they are known."""
    largest: int | None = None
    """Bytes that a pod may request on the largest node, beside the daemon sets' pods; `None`: not known."""

    def node(self, name: str) -> Node | None:
        """The node of that name."""
        return next((node for node in self.nodes if node.name == name), None)


@dataclass(frozen=True, slots=True)
class Held:
    """Memory that one pod keeps from others on its node."""

    containers: Mapping[str, int]
    """Bytes by container."""
    more: int = 0
    """Bytes beyond them, such as an init container's and the pod's overhead."""
    daemon: bool = False
    """A daemon set's: each node has one."""

    def beside(self, container: str) -> int:
        """Bytes without those of one container."""
        return self.more + sum(size for name, size in self.containers.items() if name != container)


def quotas(items: Iterable[Object]) -> tuple[Quota, ...]:
    """The figures of memory in ResourceQuotas that hold for Airflow's pods."""
    return tuple(found for quota in _each(_quotas, items) for found in quota)


def ranges(items: Iterable[Object]) -> tuple[Range, ...]:
    """What LimitRanges say about memory."""
    return tuple(found for told in _each(_ranges, items) for found in told)


def allocatable(nodes: Iterable[Object]) -> Mapping[str, int]:
    """Bytes of memory that pods may request on each node that says so."""
    found = {}
    for node in nodes:
        with suppress(KeyError, TypeError, AttributeError, ValueError):
            found[str(node["metadata"]["name"])] = quantity.parse(node["status"]["allocatable"]["memory"])
    return found


def closed(nodes: Iterable[Object]) -> frozenset[str]:
    """Nodes that take no new pod now."""
    return frozenset(node["metadata"]["name"] for node in nodes if (node.get("spec") or {}).get("unschedulable"))


def held(pod: Object) -> Held | None:
    """What a pod keeps on its node; `None`: nothing, as it has ended, or cannot be understood."""
    if (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}:
        return None
    with suppress(KeyError, TypeError, AttributeError, ValueError):
        spec, metadata = pod["spec"], pod["metadata"]
        # What is tuned may come to take its limit: that counts, whoever's it is.
        kind = "limits" if DECISION in (metadata.get("annotations") or {}) else "requests"
        given = {
            str(state["name"]): quantity.parse(((state.get("allocatedResources") or {}).get("memory")) or 0)
            for state in (pod.get("status") or {}).get("containerStatuses") or []
        }
        containers = {
            str(item["name"]): max(_size(item, kind), given.get(str(item["name"]), 0)) for item in spec["containers"]
        }
        begun = spec.get("initContainers") or []
        beside = [_size(item, kind) for item in begun if item.get("restartPolicy") == "Always"]
        first = [_size(item, "requests") for item in begun if item.get("restartPolicy") != "Always"]
        whole = sum(containers.values()) + sum(beside)
        told = _size(spec, "requests")
        overhead = quantity.parse((spec.get("overhead") or {}).get("memory", 0))
        more = max(whole, max(first, default=0), told) - sum(containers.values()) + overhead
        owners = metadata.get("ownerReferences") or []
        return Held(containers, more, any(owner.get("kind") == "DaemonSet" for owner in owners))
    return None


def _size(item: Object, kind: str) -> int:
    resources = item.get("resources") or {}
    found = (resources.get(kind) or {}).get("memory") or (resources.get("requests") or {}).get("memory") or 0
    return quantity.parse(found)


def _each(make: Callable[[Object], Iterator[Any]], items: Iterable[Object]) -> Iterator[tuple[Any, ...]]:
    """Each by itself: one that cannot be understood hides no other."""
    for item in items:
        with suppress(KeyError, TypeError, AttributeError, ValueError):
            yield tuple(make(item))


def _quotas(item: Object) -> Iterator[Quota]:
    spec, status = item.get("spec") or {}, item.get("status") or {}
    if spec.get("scopeSelector") or set(spec.get("scopes") or ()) - _SCOPES:
        return
    hard, used = status.get("hard") or {}, status.get("used") or {}
    for name, figure in _HARD.items():
        # Before the API server has counted there is nothing to go by.
        if name in hard and name in used:
            yield Quota(str(item["metadata"]["name"]), figure, quantity.parse(hard[name]), quantity.parse(used[name]))


def _ranges(item: Object) -> Iterator[Range]:
    for told in (item.get("spec") or {}).get("limits") or []:
        most, least, ratio = ((told.get(key) or {}).get("memory") for key in ("max", "min", "maxLimitRequestRatio"))
        if told.get("type") in _KINDS and (most, least, ratio) != (None, None, None):
            yield Range(
                str(item["metadata"]["name"]),
                told["type"],
                None if most is None else quantity.parse(most),
                None if least is None else quantity.parse(least),
                None if ratio is None else quantity.cores(ratio),
            )

"""Memory and CPU of pods as a kubelet counts them: quantities, requests, QoS class, and whether a pod fits."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any

Object = dict[str, Any]
Resources = Mapping[str, Any]
"""`requests` and `limits` of one container."""

_SUFFIXES = {
    "": Decimal(1),
    "m": Decimal("1e-3"),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(("k", "M", "G", "T"), start=1)},
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti"), start=1)},
}


def amount(quantity: str | float, unit: str = "1") -> int:
    """A quantity in bytes, cores, or whatever else `unit` gives (`0.001` for thousandths), rounded up."""
    found = re.fullmatch(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)([A-Za-z]{0,2})", str(quantity))
    if found is None or found[2] not in _SUFFIXES:
        msg = f"{quantity!r} is no quantity"
        raise ValueError(msg)
    return int((Decimal(found[1]) * _SUFFIXES[found[2]] / Decimal(unit)).to_integral_value(ROUND_CEILING))


def memory_limit(resources: Resources) -> int | None:
    """Bytes, or None without a limit."""
    quantity = (resources.get("limits") or {}).get("memory")
    return None if quantity is None else amount(quantity)


def cpu_limit(resources: Resources) -> float | None:
    """Cores, or None without a limit."""
    quantity = (resources.get("limits") or {}).get("cpu")
    return None if quantity is None else amount(quantity, "0.001") / 1000


def resources_of(container: Object) -> Object:
    """The resources in a container's spec."""
    return dict(container.get("resources") or {})


def both(resources: Resources, name: str) -> tuple[object, object]:
    """Request and limit of one resource, as written."""
    return (resources.get("requests") or {}).get(name), (resources.get("limits") or {}).get(name)


def together(every: Iterable[Resources]) -> Object:
    """The resources of several containers as one sum, as the status of their pod has it."""
    total: Object = {}
    for each in every:
        for kind, quantities in each.items():
            sums = total.setdefault(kind, {})
            for name, quantity in quantities.items():
                sums[name] = _sum(sums[name], quantity) if name in sums else quantity
    return total


def _sum(one: str, other: str) -> str:
    return f"{amount(one, '0.001') + amount(other, '0.001')}m"


def lowers(old: Resources, new: Resources) -> bool:
    """Whether a limit comes down, or comes to be."""
    return any(
        after is not None and (before is None or after < before)
        for before, after in ((memory_limit(old), memory_limit(new)), (cpu_limit(old), cpu_limit(new)))
    )


@dataclass(frozen=True, slots=True)
class Room:
    """An amount of what a node can give: bytes, thousandths of a core, pods."""

    memory: int = 0
    millicores: int = 0
    pods: int = 0

    def __add__(self, other: "Room") -> "Room":
        return Room(self.memory + other.memory, self.millicores + other.millicores, self.pods + other.pods)


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a pod does not fit on a node."""

    resource: str
    requested: int
    used: int
    capacity: int

    @property
    def message(self) -> str:
        """As kubelet 1.36 says it, of pods and of resizes alike."""
        return (
            f"Node didn't have enough resource: {self.resource}, requested: {self.requested},"
            f" used: {self.used}, capacity: {self.capacity}"
        )


def misfit(asked: Room, used: Room, capacity: Room) -> Misfit | None:
    """The first thing that `asked` is too much of, beside what is used already."""
    checks = (
        Misfit("pods", asked.pods, used.pods, capacity.pods),
        Misfit("cpu", asked.millicores, used.millicores, capacity.millicores),
        Misfit("memory", asked.memory, used.memory, capacity.memory),
    )
    return next((each for each in checks if each.requested and each.used + each.requested > each.capacity), None)


def requested(spec: Object, allocated: Mapping[str, Resources]) -> Room:
    """What a pod asks for: its containers together, or more where one ordinary init container alone needs more."""
    return Room(_requested(spec, allocated, "memory", "1"), _requested(spec, allocated, "cpu", "0.001"), 1)


def _requested(spec: Object, allocated: Mapping[str, Resources], resource: str, unit: str) -> int:
    def of(container: Object) -> int:
        resources = allocated.get(container["name"], container.get("resources") or {})
        return amount((resources.get("requests") or {}).get(resource, 0), unit)

    together = sum(of(container) for container in spec["containers"])
    sidecars = highest = 0
    for container in spec.get("initContainers") or []:
        if container.get("restartPolicy") == "Always":
            sidecars += of(container)
        else:
            highest = max(highest, sidecars + of(container))
    return max(together + sidecars, highest)


def qos_class(spec: Object) -> str:
    """Guaranteed, Burstable or BestEffort."""
    every = [container.get("resources") or {} for container in _all(spec)]
    if not any(each.get("requests") or each.get("limits") for each in every):
        return "BestEffort"
    same = all(
        (each.get("limits") or {}).get(resource) is not None
        and (each.get("requests") or {}).get(resource, each["limits"][resource]) == each["limits"][resource]
        for each in every
        for resource in ("cpu", "memory")
    )
    return "Guaranteed" if same else "Burstable"


def _all(spec: Object) -> Sequence[Object]:
    return [*(spec.get("initContainers") or []), *spec["containers"]]

"""Two policies for one Airflow would undo each other's changes: the older one acts. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from airflow_tuner import api
from airflow_tuner.model import Workload

Object = Mapping[str, Any]


def elder(policy: Object, others: Iterable[Object], workloads: Iterable[Workload]) -> str:
    """The policy of this namespace that acts on one of these workloads instead of `policy`; empty where none does.

    Only policies in mode Enforce act. Of several the oldest counts, and of the same age the first by name.
    """
    found = sorted(_age(other) for other in others if _age(other) < _age(policy) and _acts_on(other, workloads))
    return found[0][1] if found else ""


def _age(policy: Object) -> tuple[str, str]:
    # Times of the API server are all of one form, and so in order as texts.
    return str(policy["metadata"].get("creationTimestamp", "")), str(policy["metadata"]["name"])


def _acts_on(policy: Object, workloads: Iterable[Workload]) -> bool:
    if "deletionTimestamp" in policy["metadata"]:
        return False
    try:
        spec = api.Spec.model_validate(policy.get("spec") or {})
    except ValidationError:
        # One that cannot be read does nothing.
        return False
    wanted = spec.airflow.labels.items()
    return spec.mode is api.Mode.ENFORCE and any(wanted <= workload.labels.items() for workload in workloads)

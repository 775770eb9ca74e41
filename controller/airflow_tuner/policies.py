"""A policy as it is written: out of a file, and made a spec and a status of."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from airflow_tuner import api, crd, quantity
from airflow_tuner.errors import Misconfigured
from airflow_tuner.sentence import short

Object = dict[str, Any]

log = logging.getLogger("airflow_tuner")


def read(file: Path, namespace: str) -> Object:
    """A policy that is not applied: it has no past."""
    try:
        policy = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{file} cannot be read: {error.strerror}."
        raise Misconfigured(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{file} cannot be read as YAML."
        raise Misconfigured(msg) from error
    if not isinstance(policy, dict) or policy.get("kind") != api.KIND or not isinstance(policy.get("spec"), dict):
        msg = f"{file} holds no {api.KIND}."
        raise Misconfigured(msg)
    if wrong := list(_wrong(crd.schema()["properties"]["spec"], policy["spec"], "spec")):
        msg = f"The policy in {file} would be refused: {'; '.join(wrong[:5])}."
        raise Misconfigured(msg)
    metadata = policy.get("metadata") or {}
    return {**policy, "status": {}, "metadata": {"namespace": namespace, **metadata}}


def _wrong(schema: Object, found: Any, path: str) -> Iterator[str]:  # noqa: ANN401 - whatever is written
    """What the API server would refuse or drop in a part of a policy, and reading it as a spec does not show."""
    if isinstance(found, list):
        for number, item in enumerate(found):
            yield from _wrong(schema.get("items", {}), item, f"{path}.{number}")
    known = schema.get("properties")
    if not isinstance(found, dict) or known is None:
        return
    for name, value in found.items():
        if name in known:
            yield from _wrong(known[name], value, f"{path}.{name}")
        else:
            yield f"{path} has no field {short(str(name))}"
    if {"release", "selector"} <= known.keys() and len({"release", "selector"} & found.keys()) != 1:
        yield f"{path} needs one of release and selector"
    if {"min", "max"} <= known.keys() & found.keys() and _size(found["min"]) > _size(found["max"]):
        yield f"{path}.min is above {path}.max"


def _size(written: Any) -> int:  # noqa: ANN401 - as above
    """Thousandths, for a comparison; what is no quantity is told when the spec is read."""
    try:
        return quantity.millicores(str(written))
    except ValueError:
        return 0


def parsed(policy: Object) -> tuple[api.Spec, api.Status]:
    """The spec, or `Misconfigured` with what is wrong in it, and the status as it was left."""
    try:
        spec = api.Spec.model_validate(policy["spec"])
    except ValidationError as error:
        told = "; ".join(f"spec.{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:5])
        msg = f"The policy cannot be read: {told}"
        raise Misconfigured(msg) from error
    return spec, status(policy)


def paused(policy: Object) -> bool:
    """Whether its annotation holds every value."""
    return (policy["metadata"].get("annotations") or {}).get(api.PAUSED) == "true"


def status(policy: Object) -> api.Status:
    """The status as it was left; one that cannot be read is as good as none, and is built anew."""
    try:
        return api.Status.model_validate(policy.get("status") or {})
    except ValidationError:
        log.warning("policy %s: its status cannot be read and is built anew", policy["metadata"]["name"])
        return api.Status()

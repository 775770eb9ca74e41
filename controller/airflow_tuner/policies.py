"""A policy as it is written: out of a file, and made a spec and a status of."""

import logging
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from airflow_tuner import api
from airflow_tuner.errors import Misconfigured

Object = dict[str, Any]

log = logging.getLogger("airflow_tuner")


def read(file: Path, namespace: str) -> Object:
    """A policy that is not applied: it has no past."""
    try:
        policy = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{file} cannot be read as YAML."
        raise Misconfigured(msg) from error
    if not isinstance(policy, dict) or policy.get("kind") != api.KIND or not isinstance(policy.get("spec"), dict):
        msg = f"{file} holds no {api.KIND}."
        raise Misconfigured(msg)
    metadata = policy.get("metadata") or {}
    return {**policy, "status": {}, "metadata": {"namespace": namespace, **metadata}}


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

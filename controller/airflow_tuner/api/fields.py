"""What the fields of the resource are made of: names, quantities, labels, times, and the base of all models."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

from airflow_tuner import quantity

GROUP = "airflow-tuner.dev"
VERSION = "v1alpha1"
KIND = "TuningPolicy"
PLURAL = "tuningpolicies"
SINGULAR = "tuningpolicy"
SHORT_NAME = "atp"
CHECKPOINT_KIND = "TuningCheckpoint"
CHECKPOINT_PLURAL = "tuningcheckpoints"
CHECKPOINT_SINGULAR = "tuningcheckpoint"
PAUSED = f"{GROUP}/paused"
"""Annotation of a policy: `"true"` holds every value and makes no new change."""


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """CEL rules of a schema: (expression that must hold, message that says what to do)."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in pairs]}


def keyed(*keys: str) -> dict[str, Any]:
    """Makes a list a map by these keys for server-side apply, and its entries unique."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def _stamp(at: str) -> str:
    """A time as Kubernetes writes it: UTC, whole seconds."""
    return datetime.fromisoformat(at).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _memory(text: str) -> str:
    quantity.parse(text)
    return text


def _cpu(text: str) -> str:
    quantity.cores(text)
    return text


MemoryQuantity = Annotated[
    str,
    BeforeValidator(str),
    AfterValidator(_memory),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": quantity.PATTERN, "maxLength": 32}),
]
CpuQuantity = Annotated[
    str,
    BeforeValidator(str),
    AfterValidator(_cpu),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": quantity.CPU_PATTERN, "maxLength": 16}),
]
Labels = Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=16)]
Sentence = Annotated[str, Field(max_length=1024)]
Name = Annotated[str, Field(max_length=320)]
"""A name of Kubernetes (253 characters) with its kind or component before it."""
Time = Annotated[str, BeforeValidator(_stamp), WithJsonSchema({"type": "string", "format": "date-time"})]


class Model(BaseModel):
    """Frozen; camelCase outside; a field that a newer definition has is passed over."""

    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore", use_attribute_docstrings=True
    )

"""The fields of TuningPolicy as a page for people: the schema of `airflow_tuner.crd` in Markdown. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from airflow_tuner import api, crd

_RANGES = (
    ("minimum", "maximum", ""),
    ("minLength", "maxLength", " characters"),
    ("minItems", "maxItems", " entries"),
    ("minProperties", "maxProperties", " entries"),
)

_INTRODUCTION = f"""\
<!-- Generated from controller/airflow_tuner/api by `make crd`. Do not edit. -->
# Policy reference

`{api.GROUP}/{api.VERSION}`, kind `{api.KIND}`, short name `{api.SHORT_NAME}`, namespaced; one per Airflow deployment.
`kubectl explain {api.SINGULAR}.spec` tells the same.

A *quantity* is a plain number of bytes, or a number with one of the suffixes of Kubernetes quantities: `512Mi`, `2Gi`,
`1.5G`. `[]` stands for each entry of a list, `{{}}` for each value of a map. A field marked *required* must be there
when what it belongs to is there.

The annotation `{api.PAUSED}: "true"` on a policy holds every value and makes no new change.
"""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the schema."""

    path: str
    """Names from the section on, as in `workers[].memory.min`."""
    kind: str
    default: str
    """As YAML on one line; `required`, or empty."""
    bounds: str
    text: str
    """The description, and the messages of the CEL rules."""


def fields(node: crd.Schema, path: str = "") -> Iterator[Field]:
    """Every field below a schema, in the order of the schema."""
    required = node.get("required", [])
    for name, child in node.get("properties", {}).items():
        where = f"{path}.{name}".lstrip(".")
        yield _field(where, child, required=name in required)
        yield from fields(child.get("items", child), f"{where}[]" if "items" in child else where)


def rendered() -> str:
    """The page, as it lies in `docs/policy-reference.md`."""
    top = crd.schema()["properties"]
    columns = {
        "spec": ("Field", "Type", "Default", "Bounds", "Meaning"),
        "status": ("Field", "Type", "Bounds", "Meaning"),
    }
    parts = [f"## {name}\n\n{_about(top[name])}\n\n{_table(top[name], titles)}\n" for name, titles in columns.items()]
    return "\n".join([_INTRODUCTION, *parts])


def _field(path: str, node: crd.Schema, *, required: bool) -> Field:
    default = "*required*" if required else f"`{_inline(node['default'])}`" if "default" in node else ""
    return Field(path, _kind(node), default, _bounds(node), _about(node))


def _about(node: crd.Schema) -> str:
    """The description, and what the API server refuses beyond types and bounds."""
    rules = [f"Rule: {rule['message']}." for rule in node.get("x-kubernetes-validations", [])]
    entries = node.get("items", {}).get("x-kubernetes-validations", [])
    rules += [f"Rule for each entry: {rule['message']}." for rule in entries]
    if keys := node.get("x-kubernetes-list-map-keys"):
        rules.append(f"Each entry has its own {' and '.join(f'`{key}`' for key in keys)}.")
    return " ".join([node.get("description", ""), *rules])


def _kind(node: crd.Schema) -> str:
    if node.get("x-kubernetes-int-or-string"):
        return "quantity"
    if "enum" in node:
        return " or ".join(f"`{value}`" for value in node["enum"])
    if node.get("format") == "date-time":
        return "time"
    if "items" in node:
        return f"list of {_kind(node['items'])}"
    if isinstance(node.get("additionalProperties"), dict):
        return f"map of {_kind(node['additionalProperties'])}"
    return str(node["type"])


def _bounds(node: crd.Schema) -> str:
    """The bounds of a value; a quantity's form is told once for all."""
    if node.get("x-kubernetes-int-or-string"):
        return ""
    told = [_range(node.get(low), node.get(high)) + unit for low, high, unit in _RANGES if {low, high} & node.keys()]
    if "pattern" in node:
        told.append(f"matches `{node['pattern']}`")
    for key, sign in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(node.get(key), dict) and "properties" not in node[key] and (inner := _bounds(node[key])):
            told.append(f"`{sign}` {inner}")
    return ", ".join(told)


def _range(low: int | None, high: int | None) -> str:
    if low is None:
        return f"at most {high}"
    return f"at least {low}" if high is None else f"{low} to {high}"


def _inline(value: Any) -> str:  # noqa: ANN401 - a default can be anything that YAML can say
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("...\n").strip()


def _literal(text: str) -> str:
    """`text` with what Markdown would take for a tag outside of code written as it is read."""
    parts = text.split("`")
    return "`".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(parts))


def _table(node: crd.Schema, columns: tuple[str, ...]) -> str:
    rows = [columns, tuple("---" for _ in columns)]
    for field in fields(node):
        told = {
            "Field": f"`{field.path}`",
            "Type": field.kind,
            "Default": field.default,
            "Bounds": field.bounds,
            "Meaning": _literal(field.text),
        }
        rows.append(tuple(told[column].replace("|", "\\|") for column in columns))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)

"""The fields of the lines that `replay` reads and writes, as a page for people: their JSON schema in Markdown. Pure."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_tuner import transcript

Schema = Mapping[str, Any]

_INTRODUCTION = """\
<!-- Generated from controller/airflow_tuner/transcript.py and model.py by `make crd`. Do not edit. -->
# Lines of replay, version 1

What `airflow-tuner replay` reads and writes; [replay](replay.md) says how. Sizes are bytes, times are ISO 8601 text
with an offset. Where a default is named the field may be left out; `null` means not set, or not known, and never zero.
`airflow-tuner replay --schema` prints the same as JSON schemas.
"""


def rendered() -> str:
    """The page, as it lies in `docs/replay-lines.md`."""
    parts = [_INTRODUCTION]
    shown: set[str] = set()
    for title, name in (("A line that goes in", "observation"), ("A line that comes out", "decision")):
        schema = transcript.schema()[name]
        parts.append(f"## {title}\n\n" + _table(schema))
        for kind, node in schema["$defs"].items():
            if kind in shown:
                continue
            shown.add(kind)
            told = (
                _table(node) if "properties" in node else f"One of {', '.join(f'`{one}`' for one in node['enum'])}.\n"
            )
            parts.append(f"### {kind}\n\n{_line(node)}\n\n{told}")
    return "\n".join(parts)


def _table(node: Schema) -> str:
    rows = ["| Field | Type | Default | Meaning |", "| --- | --- | --- | --- |"]
    rows += [
        f"| `{name}` | {' or '.join(_kinds(child))} | {_default(node, name)} | {_line(child)} |"
        for name, child in node["properties"].items()
    ]
    return "\n".join(rows) + "\n"


def _kinds(node: Schema) -> Iterator[str]:
    if "$ref" in node:
        yield node["$ref"].rpartition("/")[2]
    elif "anyOf" in node:
        for child in node["anyOf"]:
            yield from _kinds(child)
    elif "const" in node:
        yield f"`{json.dumps(node['const'])}`"
    elif node.get("type") == "array":
        yield f"list of {' or '.join(_kinds(node.get('items', {})))}"
    elif node.get("type") == "object":
        inner = node.get("additionalProperties")
        yield f"map to {' or '.join(_kinds(inner))}" if isinstance(inner, dict) else "map"
    elif node.get("format") == "date-time":
        yield "time"
    else:
        yield str(node.get("type", "any"))


def _default(node: Schema, name: str) -> str:
    if name in node.get("required", ()):
        return "required"
    default = node["properties"][name].get("default", {})
    # What is made anew each time has none in the schema, and is empty, too.
    return "empty" if isinstance(default, dict) else f"`{json.dumps(default)}`"


def _line(node: Schema) -> str:
    return " ".join(str(node.get("description", "")).split()).replace("|", "\\|").replace("`None`", "`null`")

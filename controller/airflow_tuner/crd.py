"""The models of `airflow_tuner.api` as a custom resource definition: structural, documented, with CEL rules."""

import copy
from typing import Any

import yaml

from airflow_tuner import api

Schema = dict[str, Any]

_COLUMNS: tuple[tuple[str, str, str, int, str], ...] = (
    ("Mode", "string", ".spec.mode", 0, "Recommend or Enforce"),
    ("Ready", "string", ".status.conditions[?(@.type=='Ready')].status", 0, "Does the operator do its work"),
    ("State", "string", ".status.summary", 0, "The state in a few words"),
    ("Last Change", "string", ".status.lastChange", 0, "The newest change in a few words"),
    ("Age", "date", ".metadata.creationTimestamp", 0, ""),
    ("Converged", "string", ".status.conditions[?(@.type=='Converged')].status", 1, "Do all running pods have it"),
    ("Metrics", "string", ".status.conditions[?(@.type=='MetricsAvailable')].status", 1, "Are the metrics there"),
    ("Worst Finding", "string", ".status.findings[0].reason", 1, "The worst thing that was seen"),
)


def schema(model: type[api.Model] = api.TuningPolicy) -> Schema:
    """The structural OpenAPI v3 schema of a resource; `TypeError` names the path of what has no such form."""
    document = model.model_json_schema(by_alias=True, mode="validation")
    definitions = document.pop("$defs", {})
    whole = _structural(document, definitions, "", ())
    # A status says what was written and nothing more; a default would be added to it at every write.
    for name in {"status", "memory"} & whole["properties"].keys():
        whole["properties"][name] = _without_defaults(whole["properties"][name])
    return whole


def _without_defaults(node: Schema) -> Schema:
    bare = {key: value for key, value in node.items() if key != "default"}
    if "properties" in bare:
        bare["properties"] = {name: _without_defaults(child) for name, child in bare["properties"].items()}
    if isinstance(bare.get("items"), dict):
        bare["items"] = _without_defaults(bare["items"])
    return bare


def _structural(node: Schema, definitions: Schema, path: str, inside: tuple[str, ...]) -> Schema:
    node = copy.deepcopy(node)
    if "$ref" in node:
        name = str(node.pop("$ref")).rsplit("/", 1)[-1]
        if name in inside:
            msg = f"{path}: {name} contains itself, which a structural schema cannot say"
            raise TypeError(msg)
        return _structural({**definitions[name], **node}, definitions, path, (*inside, name))
    if "anyOf" in node:
        return _structural(_only_choice(node, path), definitions, path, inside)
    node.pop("title", None)
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if "properties" in node:
        node.pop("additionalProperties", None)
        node["properties"] = {
            name: _structural(child, definitions, f"{path}.{name}", inside)
            for name, child in node["properties"].items()
        }
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            node[key] = _structural(node[key], definitions, f"{path}[]", inside)
            if "description" in node:
                # `kubectl explain` shows both, one under the other.
                node[key].pop("description", None)
    if node.get("x-kubernetes-int-or-string"):
        node.pop("type", None)
        node["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return _tidied(node)


def _tidied(node: Schema) -> Schema:
    """The texts in one line, and the defaults without nulls."""
    if "default" in node:
        node["default"] = _without_nulls(node["default"])
    if "description" in node:
        node["description"] = " ".join(str(node["description"]).split())
    return node


def _without_nulls(value: Any) -> Any:  # noqa: ANN401 - any value of a default
    """A default without what is absent in it: in the API, optional means left out, not null."""
    if isinstance(value, dict):
        return {key: _without_nulls(child) for key, child in value.items() if child is not None}
    return value


def _only_choice(node: Schema, path: str) -> Schema:
    """An optional value as the value alone: in a structural schema, optional means not required."""
    real = [choice for choice in node.pop("anyOf") if choice.get("type") != "null"]
    if len(real) != 1:
        msg = f"{path}: a union of {len(real)} types has no structural form"
        raise TypeError(msg)
    if node.get("default", ...) is None:
        del node["default"]
    return {**real[0], **node}


def undocumented(node: Schema, path: str = "") -> list[str]:
    """Paths of the fields that `kubectl explain` would show without a text."""
    missing = []
    for name, child in node.get("properties", {}).items():
        if not child.get("description"):
            missing.append(f"{path}.{name}")
        missing += undocumented(child.get("items", child), f"{path}.{name}")
    return missing


def definition() -> Schema:
    """The CustomResourceDefinition of TuningPolicy."""
    columns = [
        {"name": name, "type": kind, "jsonPath": path, "priority": priority} | ({"description": text} if text else {})
        for name, kind, path, priority, text in _COLUMNS
    ]
    names = {
        "kind": api.KIND,
        "listKind": f"{api.KIND}List",
        "plural": api.PLURAL,
        "singular": api.SINGULAR,
        "shortNames": [api.SHORT_NAME],
        "categories": ["airflow"],
    }
    more = {"subresources": {"status": {}}, "additionalPrinterColumns": columns}
    return _definition(schema(), names, more)


def checkpoint_definition() -> Schema:
    """The CustomResourceDefinition of TuningCheckpoint."""
    names = {
        "kind": api.CHECKPOINT_KIND,
        "listKind": f"{api.CHECKPOINT_KIND}List",
        "plural": api.CHECKPOINT_PLURAL,
        "singular": api.CHECKPOINT_SINGULAR,
    }
    return _definition(schema(api.TuningCheckpoint), names, {})


def _definition(top: Schema, names: Schema, more: Schema) -> Schema:
    top["properties"] = {
        "apiVersion": {"type": "string", "description": "Version of the form of this object."},
        "kind": {"type": "string", "description": "Kind of this object."},
        "metadata": {"type": "object"},
        **top["properties"],
    }
    version = {"name": api.VERSION, "served": True, "storage": True, **more, "schema": {"openAPIV3Schema": top}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names['plural']}.{api.GROUP}"},
        "spec": {"group": api.GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


DEFINITIONS = {api.PLURAL: definition, api.CHECKPOINT_PLURAL: checkpoint_definition}
"""By the names of the files in `crds/`."""


def rendered(plural: str = api.PLURAL) -> str:
    """A definition as the YAML that lies in `crds/`."""
    text: str = yaml.safe_dump(DEFINITIONS[plural](), sort_keys=False, width=120)
    return f"# Generated from controller/airflow_tuner/api by `make crd`. Do not edit.\n{text}"

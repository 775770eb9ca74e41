"""The custom resource definition: generated, structural, documented, bounded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
import yaml

from airflow_tuner import api, crd

FOLDER = Path(__file__).parents[2] / "crds"


def nodes(node: crd.Schema, path: str = "") -> Iterator[tuple[str, crd.Schema]]:
    """Every schema in a schema, with its path; names of properties are no schemas."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from nodes(node[key], f"{path}[]")


def top() -> crd.Schema:
    version = crd.definition()["spec"]["versions"][0]
    schema: crd.Schema = version["schema"]["openAPIV3Schema"]
    return schema


@pytest.mark.parametrize("plural", crd.DEFINITIONS)
def test_the_files_in_the_repository_are_what_the_models_say(plural: str) -> None:
    assert (FOLDER / f"{plural}.yaml").read_text() == crd.rendered(plural), "run `make crd`"


def test_every_field_has_a_text_for_kubectl_explain() -> None:
    assert crd.undocumented(crd.schema()) == []
    assert crd.undocumented(crd.schema(api.TuningCheckpoint)) == []


def test_a_field_without_a_text_is_named_by_its_path() -> None:
    schema = {"properties": {"a": {"items": {"properties": {"b": {"type": "string"}}}, "description": "A."}}}
    assert crd.undocumented(schema) == [".a.b"]


@pytest.mark.parametrize("word", ["$ref", "title", "allOf", "oneOf", "not", "$defs", "const", "definitions"])
def test_the_schema_is_structural_and_without(word: str) -> None:
    assert [path for path, node in nodes(top()) if word in node] == []


def test_every_schema_has_one_type_or_is_an_int_or_string() -> None:
    for path, node in nodes(top()):
        if node.get("x-kubernetes-int-or-string"):
            assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}], path
            assert "type" not in node, path
        else:
            assert "anyOf" not in node, path
            assert isinstance(node.get("type"), str), path


def test_no_null_is_a_default() -> None:
    assert [path for path, node in nodes(top()) if node.get("default", 0) is None] == []


def test_every_list_and_map_is_bounded() -> None:
    for path, node in nodes(top()):
        if node.get("type") == "array":
            assert node.get("maxItems"), path
        if isinstance(node.get("additionalProperties"), dict):
            assert node.get("maxProperties"), path


def test_every_text_of_spec_and_status_is_bounded() -> None:
    for path, node in nodes(top()):
        if node.get("type") == "string" and path.startswith((".spec", ".status")):
            assert "maxLength" in node or "enum" in node or node.get("format") == "date-time", path


def test_every_rule_has_a_message() -> None:
    rules = [rule for _, node in nodes(top()) for rule in node.get("x-kubernetes-validations", [])]
    assert rules
    assert all(rule["rule"] and rule["message"] for rule in rules)


def test_keys_of_keyed_lists_are_required_strings() -> None:
    for path, node in nodes(top()):
        for key in node.get("x-kubernetes-list-map-keys", []):
            assert key in node["items"]["required"], path
            assert node["items"]["properties"][key]["type"] == "string", path


def test_columns_show_paths_that_exist() -> None:
    fields = {path.lstrip(".").split(".")[0] for path, _ in nodes(top()["properties"]["status"])} - {""}
    for column in crd.definition()["spec"]["versions"][0]["additionalPrinterColumns"]:
        head, _, rest = column["jsonPath"].lstrip(".").partition(".")
        if head == "status":
            assert rest.partition("[")[0].partition(".")[0] in {field.partition("[")[0] for field in fields}


def test_the_file_is_one_plain_yaml_document() -> None:
    (document,) = yaml.safe_load_all((FOLDER / "tuningpolicies.yaml").read_text())
    assert document["metadata"]["name"] == "tuningpolicies.airflow-tuner.dev"
    assert document["spec"]["scope"] == "Namespaced"


class _Tree(api.TuningPolicy):
    children: tuple["_Tree", ...] = ()


class _Union(api.TuningPolicy):
    either: int | list[str] = 0


class _Constant(api.TuningPolicy):
    only: Literal["this"] = "this"


def test_a_model_that_contains_itself_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="_Tree contains itself"):
        crd.schema(_Tree)


def test_a_union_is_refused_by_its_path() -> None:
    with pytest.raises(TypeError, match=r"\.either: a union of 2 types"):
        crd.schema(_Union)


def test_a_constant_becomes_a_list_of_one_value() -> None:
    assert crd.schema(_Constant)["properties"]["only"]["enum"] == ["this"]


def test_a_policy_as_the_readme_shows_it_can_be_read() -> None:
    text = {
        "mode": "Enforce",
        "airflow": {"selector": {"matchLabels": {"app": "airflow"}}},
        "dagProcessor": {"memory": {"min": 2**29, "max": "2Gi"}},
        "workers": [{"name": "*", "memory": {"min": "1Gi", "max": "16Gi"}}],
    }
    spec = api.Spec.model_validate(text)
    assert spec.airflow.labels == {"app": "airflow"}
    assert spec.component("dag-processor") == spec.dag_processor is not None
    assert spec.component("redis") is None
    assert spec.changes.cooldown.raise_seconds == 600

"""The policy reference: generated, complete, and readable as Markdown."""

import re
from pathlib import Path

from click.testing import CliRunner

from airflow_tuner import crd, reference
from airflow_tuner.__main__ import main
from airflow_tuner.reference import Field

FILE = Path(__file__).parents[2] / "docs" / "policy-reference.md"
SCHEMA = {
    "properties": {
        "sizes": {
            "type": "array",
            "description": "Sizes of `<this>`, not of <that>.",
            "maxItems": 4,
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "required": ["name"],
                "x-kubernetes-validations": [{"rule": "true", "message": "be good"}],
                "properties": {
                    "name": {"type": "string", "minLength": 1, "maxLength": 9, "pattern": "^(a|b)$"},
                    "at": {"type": "string", "format": "date-time"},
                    "count": {"type": "integer", "minimum": 0, "default": 3},
                    "mode": {"type": "string", "enum": ["On", "Off"], "default": "On"},
                },
            },
        },
        "labels": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}, "maxProperties": 16},
        "memory": {"x-kubernetes-int-or-string": True, "pattern": "^[0-9]+$", "maxLength": 32},
    }
}


def field(path: str) -> Field:
    return next(found for found in reference.fields(SCHEMA) if found.path == path)


def cells(row: str) -> list[str]:
    """The cells of a row of a table."""
    return re.split(r"(?<!\\)\|", row.strip("|"))


def test_the_file_in_the_repository_is_what_the_models_say() -> None:
    assert FILE.read_text() == reference.rendered(), "run `make crd`"


def test_every_field_of_spec_and_status_has_one_row() -> None:
    def paths(node: crd.Schema, path: str = "") -> list[str]:
        found = []
        for name, child in node.get("properties", {}).items():
            where = f"{path}.{name}" if path else name
            found += [where, *paths(child.get("items", child), where + ("[]" if "items" in child else ""))]
        return found

    top = crd.schema()["properties"]
    _, spec, status = reference.rendered().split("\n## ")
    for section, name in ((spec, "spec"), (status, "status")):
        assert re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE) == paths(top[name])


def test_every_rule_of_the_schema_is_told() -> None:
    page = reference.rendered()
    assert "Rule: memory.min must not exceed memory.max." in page
    assert "Rule: name the Airflow deployment by exactly one of airflow.release and airflow.selector." in page


def test_every_row_has_as_many_cells_as_its_table_has_columns() -> None:
    for table in re.findall(r"(?:^\|.*\n)+", reference.rendered(), re.MULTILINE):
        assert len({len(cells(row)) for row in table.splitlines()}) == 1


def test_nothing_outside_of_code_is_taken_for_a_tag() -> None:
    assert re.findall(r"<[a-z]", re.sub(r"`[^`]*`", "", reference.rendered())) == []


def test_a_list_tells_its_entries_keys_and_rules() -> None:
    assert field("sizes") == Field(
        "sizes",
        "list of object",
        "",
        "at most 4 entries",
        "Sizes of `<this>`, not of <that>. Rule for each entry: be good. Each entry has its own `name`.",
    )


def test_a_required_field_says_so_and_tells_its_bounds() -> None:
    assert field("sizes[].name") == Field(
        "sizes[].name", "string", "*required*", "1 to 9 characters, matches `^(a|b)$`", ""
    )


def test_types_are_told_in_words() -> None:
    kinds = {found.path.removeprefix("sizes[]."): found.kind for found in reference.fields(SCHEMA)}
    assert kinds["at"] == "time"
    assert kinds["mode"] == "`On` or `Off`"
    assert kinds["labels"] == "map of string"
    assert kinds["memory"] == "quantity"


def test_bounds_and_defaults_are_told() -> None:
    assert (field("sizes[].count").bounds, field("sizes[].count").default) == ("at least 0", "`3`")
    assert field("labels").bounds == "at most 16 entries, `{}` at most 63 characters"
    assert field("memory").bounds == ""


def test_the_command_prints_the_page() -> None:
    answer = CliRunner().invoke(main, ["reference"])
    assert (answer.exit_code, answer.output) == (0, reference.rendered())


def test_the_command_refuses_a_page_that_differs_and_says_what_to_run(tmp_path: Path) -> None:
    old = tmp_path / "old.md"
    old.write_text("# Policy reference\n")
    answer = CliRunner().invoke(main, ["reference", "--check", str(old)])
    assert answer.exit_code == 1
    assert "run `make crd`" in answer.output
    assert CliRunner().invoke(main, ["reference", "--check", str(FILE)]).exit_code == 0

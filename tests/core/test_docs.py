"""The documentation keeps to the code: its links, policies, commands, findings and constants are checked."""

import ast
import importlib
import re
from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from airflow_tuner import api, crd, questions
from airflow_tuner.namings import NAMINGS, Naming
from airflow_tuner.quantity import MEBIBYTE, readable

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "policy.yaml"
FINDINGS = ROOT / "docs" / "findings"
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "charts/airflow-tuner/README.md")),
        *(ROOT / "docs").glob("**/*.md"),
    ]
)
CAMEL = re.compile(r"[A-Z][a-z]+(?:[A-Z][a-z]+)+")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
MAKE = re.compile(r"\bmake ((?:[a-z]+ ?)+)")


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    return [found[3] for found in FENCE.finditer(page.read_text()) if found[2] == language]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


def words(module: str) -> set[str]:
    """The texts in a module of the operator that are one CamelCase word: findings, causes, and reasons of changes."""
    tree = ast.parse((ROOT / "controller" / "airflow_tuner" / f"{module}.py").read_text())
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return {text for text in texts if CAMEL.fullmatch(text)}


def reasons() -> set[str]:
    """Every finding's reason in the rooms of `diagnose`."""
    rooms = (ROOT / "controller" / "airflow_tuner" / "diagnose").glob("[a-z]*.py")
    return {word for room in rooms for word in words(f"diagnose/{room.stem}")}


def closed(node: crd.Schema) -> crd.Schema:
    """The schema without the freedom to say what it does not know: the API server would drop it in silence."""
    shut = dict(node)
    if "properties" in shut:
        shut["properties"] = {name: closed(child) for name, child in shut["properties"].items()}
        shut["additionalProperties"] = False
    if "items" in shut:
        shut["items"] = closed(shut["items"])
    return shut


def policies() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every TuningPolicy in README, docs and examples, with where it stands."""
    texts = [(named(page), block) for page in PAGES for block in blocks(page, "yaml")]
    texts += [(named(file), file.read_text()) for file in sorted((ROOT / "docs" / "examples").glob("*.yaml"))]
    for where, text in texts:
        for document in yaml.safe_load_all(text):
            if isinstance(document, dict) and document.get("kind") == api.KIND:
                yield where, document


def told(value: object) -> str:
    """A constant as the documentation writes it."""
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g} s"
    if isinstance(value, int) and value % MEBIBYTE == 0:
        return readable(value)
    return f"{value:g}"


def constant(module: str, path: str) -> object:
    """A constant of a module, an entry of a table in it, or the default of a field of a class in it."""
    value: object = importlib.import_module(f"airflow_tuner.{module}")
    for name in path.split("."):
        value = value[name] if isinstance(value, dict) else getattr(value() if isinstance(value, type) else value, name)
    return value


def numbers(module: str) -> Iterator[str]:
    """The constants of a module that are numbers, or times, or tables of them; other names for a number are none."""
    tree = ast.parse((ROOT / "controller" / "airflow_tuner" / f"{module}.py").read_text())
    for node in tree.body:
        if not isinstance(node, ast.Assign) or isinstance(node.value, ast.Attribute | ast.Name):
            continue
        for name in (target.id for target in node.targets if isinstance(target, ast.Name) and target.id.isupper()):
            value = constant(module, name)
            if isinstance(value, int | float | timedelta):
                yield name
            elif isinstance(value, dict) and all(isinstance(item, int | float) for item in value.values()):
                yield from (f"{name}.{key}" for key in value)


def test_every_finding_has_a_page_and_every_page_a_finding() -> None:
    assert {page.stem for page in FINDINGS.glob("*.md")} - {"README"} == reasons()


def test_the_index_of_findings_names_each_with_the_severity_its_page_tells() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\((\w+)\.md\) \| (\w+) \|", (FINDINGS / "README.md").read_text(), re.MULTILINE)
    assert {(name, target) for name, target, _ in rows} == {(reason, reason) for reason in reasons()}
    for name, _, severity in rows:
        assert (FINDINGS / f"{name}.md").read_text().startswith(f"# {name}\n\n{severity}. About "), name


@pytest.mark.parametrize(
    ("page", "modules"),
    [("QueueLagHigh", ("runaway", "stranded", "lag", "concurrency", "local")), ("DagParsingOverloaded", ("parsing",))],
)
def test_every_cause_that_a_finding_may_name_has_a_section(page: str, modules: tuple[str, ...]) -> None:
    # These are reasons of changes alone.
    causes = {word for module in modules for word in words(module)} - {
        "SlotsIdle",
        "SlotsReturned",
        "BoundsChanged",
        "ParsingEager",
    }
    assert {*re.findall(r"^### ([A-Z]\w+)$", prose(FINDINGS / f"{page}.md"), re.MULTILINE)} == causes


def test_every_finding_is_a_runbook_of_the_same_form() -> None:
    form = ["What it means", "How it was seen", "What the operator does", "What you can do", "When it ends"]
    for reason in reasons():
        assert re.findall(r"^## (.+)$", prose(FINDINGS / f"{reason}.md"), re.MULTILINE) == form, reason


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(re.sub(r"`[^`\n]*`", "", prose(page))):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_policy_that_is_shown_is_one_the_api_server_takes() -> None:
    schema = closed(crd.schema())
    schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}}
    shown = list(policies())
    assert {where for where, _ in shown} >= {"README.md", "docs/examples/policy.yaml"}
    for where, policy in shown:
        found = [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(policy)]
        assert (where, found) == (where, [])
        assert policy["apiVersion"] == f"{api.GROUP}/{api.VERSION}", where
        api.Spec.model_validate(policy["spec"])


def test_the_readme_shows_the_example_as_it_is() -> None:
    assert EXAMPLE.read_text() in blocks(ROOT / "README.md", "yaml")


def test_every_make_command_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        code = re.findall(r"`([^`\n]+)`", prose(page)) + blocks(page, "sh")
        commands = [word for text in code for words in MAKE.findall(text) for word in words.split()]
        assert set(commands) - targets == set(), named(page)


def test_every_constant_is_told_as_it_is() -> None:
    page = (ROOT / "docs" / "how-it-decides.md").read_text()
    rows = re.findall(r"^\| `(\w+)\.([\w.]+)` \| (\S+)(?: (\S+))? \|", page, re.MULTILINE)
    assert rows
    for module, path, number, unit in rows:
        value = told(constant(module, path))
        text = f"{number} {unit}".strip()
        assert text in {value, f"{value} s"}, f"{module}.{path} is {value}"


def test_every_constant_of_the_rules_is_in_the_table() -> None:
    page = (ROOT / "docs" / "how-it-decides.md").read_text()
    for module in (
        "leak",
        "learning",
        "forecast",
        "sizing",
        "steps",
        "kills",
        "footprint",
        "lag",
        "runaway",
        "stranded",
        "concurrency",
        "demand",
        "workgroup",
        "calendars",
        "capacity",
        "due",
        "planned",
        "triggers",
        "parsing",
        "restarts",
        "task_sizes",
        "telemetry",
    ):
        found = [*numbers(module)]
        assert found, module
        assert [name for name in found if f"| `{module}.{name}` |" not in page] == [], module


def test_every_reason_of_a_change_of_slots_or_parsing_is_told() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "how-it-decides.md").read_text(), re.MULTILINE)
    told = {"SlotsExhausted", "SlotsForecast", "SlotsReleased", "SlotsIdle", "MemoryBound", "BoundsChanged"}
    assert told | {"ParsingOverloaded", "DagsStale", "ParsingEager"} <= {*rows}


def expanded(pattern: str) -> set[str]:
    """The names that a pattern with alternatives stands for."""
    found = re.search(r"\(([^()]*)\)", pattern)
    if found is None:
        return {pattern}
    ways = (f"{pattern[: found.start()]}{one}{pattern[found.end() :]}" for one in found[1].split("|"))
    return {name for way in ways for name in expanded(way)}


def series(on: Naming) -> set[str]:
    """Every series that the questions in this naming name."""
    texts = [signal.texts[on.name] for signal in questions.AIRFLOW]
    patterns = {one for text in texts for one in re.findall(r'__name__=~"([^"]+)"', text)}
    named = {name for text in texts for name in re.findall(r'(?<!["\w])(airflow_\w+)(?=[{\[])', text)}
    return named | {name for pattern in patterns for name in expanded(pattern)}


def test_the_table_of_metrics_names_every_signal_and_just_the_series_that_are_asked_for() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in re.findall(r"^\| `[a-z_]+`.*\|$", page, re.MULTILINE)
    ]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row[0])]
    parts = {
        "gauges",
        "queues",
        "queued_least",
        "slowest_files",
        *questions.RATES,
        *questions.SIGNS,
        *questions.FILES,
        *questions.TRIGGER_MEMORY,
    }
    assert {*named} == parts
    assert len(named) == len(parts) + 1, "each once, but the gauges"
    told: dict[str, set[str]] = {name: set() for name in NAMINGS}
    for row in rows:
        assert len(row) == 7, row[0]
        cells = dict(zip(("Chart", "Tagged", "OpenTelemetry"), row[3:6], strict=True))
        for name in told:
            cell = cells[name]
            while found := re.fullmatch(r"as (\w+)", cell):
                cell = cells[found[1]]
            told[name] |= {re.sub(r"<\w+>", ".+", one) for one in re.findall(r"`(airflow_[\w<>]+)", cell)}
    for on in NAMINGS.values():
        assert told[on.name] == series(on), on.name


def test_the_page_of_metrics_tells_every_naming() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert re.findall(r"^\| `([A-Z]\w+)` \|", page, re.MULTILINE) == [str(one) for one in api.Naming]

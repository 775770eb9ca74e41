"""The report: one page that needs nothing else, says what came of it, and is not led astray by anybody's names."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from airflow_tuner import digest, page, plot
from airflow_tuner.__main__ import main
from airflow_tuner.chronicle import Chronicle, Look, sums
from airflow_tuner.counterfactual import Kill
from airflow_tuner.fleet import scenarios
from airflow_tuner.fleet.loads import Burst, Load
from airflow_tuner.fleet.scenarios import Scenario
from airflow_tuner.model import Change, Cpu, Finding, Severity, Values
from airflow_tuner.plot import Axis, Line, Mark
from core.worlds import MI, NOW, memory

MINUTE = timedelta(minutes=1)
HOSTILE = '<script>alert(\'x\')</script>"><img src=x onerror="y">\N{RIGHT-TO-LEFT OVERRIDE}&amp;'
VOID = {"meta", "link", "br", "line", "circle"}
LOOK = Look(3, 500.0 * MI, memory(512, 1024), memory(512, 1024), (3 * 512 * MI,) * 2, (3 * 1024 * MI,) * 2, (12, 12))


class Tags(HTMLParser):
    """What a page is made of; an error where a tag is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag begins."""
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag that has nothing in it."""
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        """A tag ends."""
        assert self._open.pop() == tag

    def all_of(self, attribute: str) -> Iterator[str]:
        """Every value of an attribute."""
        return (attributes[attribute] for _, attributes in self.tags if attribute in attributes)


def change(before: Values, after: Values, message: str = "Because.", target: str = "worker/default") -> Change:
    return Change(target, "d-1", "OutOfMemory", before, after, message)


def told(*looks: Look, name: str = "worker/default", minutes: int = 60, lived: bool = False) -> Chronicle:
    """A chronicle of an hour for each look."""
    chronicle = Chronicle("airflow", "A test.", 30, lived=lived)
    for number, look in enumerate(looks):
        chronicle.note(NOW + number * minutes * MINUTE, {name: ("StatefulSet/w", look)}, (), ())
    return chronicle


def test_the_page_needs_nothing_and_forbids_itself_to_load_anything() -> None:
    text = page.rendered(told(LOOK, LOOK))
    tags = Tags(text)
    assert {tag for tag, _ in tags.tags} & {"script", "img", "iframe", "object", "form"} == set()
    assert [*tags.all_of("src")] == []
    assert all(link.startswith(("#", "data:")) for link in tags.all_of("href"))
    assert "default-src 'none'" in next(value for value in tags.all_of("content") if "src" in value)
    assert not re.search(r"url\(|@import|https?:", text)


def test_names_and_sentences_of_anybody_stay_text() -> None:
    chronicle = told(LOOK, LOOK, name=HOSTILE)
    one = Finding("OutOfMemory", Severity.CRITICAL, HOSTILE, HOSTILE, NOW)
    kill = Kill(NOW, HOSTILE, HOSTILE, 1, MI, 2 * MI)
    moved = change(Values(), Values(memory(1, 2)), HOSTILE, HOSTILE)
    chronicle.note(NOW + 2 * 60 * MINUTE, {HOSTILE: (HOSTILE, LOOK)}, [moved], [one], [kill])
    chronicle.title = chronicle.told = HOSTILE
    chronicle.notes = [HOSTILE]
    chronicle.close()
    text = page.rendered(chronicle)
    tags = Tags(text)
    assert {tag for tag, _ in tags.tags} & {"script", "img"} == set()
    assert not any(key.startswith("on") for _, attributes in tags.tags for key in attributes)
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in text
    assert text.count("&lt;script&gt;") >= 12, "they are all there, as text"


def test_every_link_leads_somewhere_and_every_id_is_one() -> None:
    chronicle = Chronicle("airflow", "A test.", 30)
    values = Values(memory(512, 1024), 4)
    for number in range(3):
        looks = dict.fromkeys(("worker/a-b", "worker/a_b", "worker/a/b"), ("Deployment/x", LOOK))
        chronicle.note(NOW + number * MINUTE, looks, [change(values, values, target=name) for name in looks], ())
    tags = Tags(page.rendered(chronicle))
    ids = [*tags.all_of("id")]
    assert len(ids) == len({*ids})
    assert {link[1:] for link in tags.all_of("href") if link.startswith("#")} <= {*ids}


def test_who_does_not_see_the_plots_is_told_what_is_in_them() -> None:
    tags = Tags(page.rendered(told(LOOK, LOOK)))
    plots = [attributes for tag, attributes in tags.tags if tag == "svg"]
    assert plots
    for attributes in plots:
        assert attributes["role"] == "img"
        assert len(attributes["aria-label"]) > 20
    assert next(attributes["lang"] for tag, attributes in tags.tags if tag == "html") == "en"
    assert all(attributes["scope"] in {"col", "row"} for tag, attributes in tags.tags if tag == "th")


def test_a_change_is_a_mark_and_a_row_that_says_only_what_differs() -> None:
    chronicle = told(LOOK)
    moved = change(Values(memory(512, 1024), 4), Values(memory(512, 2048), 8, cpu=Cpu(250)), "More was needed.")
    chronicle.note(NOW + MINUTE, {"worker/default": ("StatefulSet/w", LOOK)}, [moved], ())
    text = page.rendered(chronicle)
    assert '<td class="values">limit 1024 MiB → 2048 MiB<br>CPU request none → 0.25 cores<br>slots 4 → 8</td>' in text
    # In the plot of memory and in that of slots.
    assert text.count("OutOfMemory: More was needed.</title>") == 2


def test_an_empty_time_is_told_as_such() -> None:
    chronicle = Chronicle("airflow", "A test.", 30)
    chronicle.close()
    text = page.rendered(chronicle)
    Tags(text)
    assert "would have made 0 changes." in text
    assert text.count("<p>None.</p>") == 3
    assert "No kill for memory was seen." in digest.text(chronicle)


def test_kills_are_counted_by_what_is_known_of_them() -> None:
    chronicle = told(LOOK, LOOK)
    one = Kill(NOW, "worker/default", "w-0", 1, 1000 * MI, 1000 * MI)
    chronicle.courses["worker/default"].kills += [
        replace(one, count=2),
        replace(one, then=1199 * MI),
        replace(one, then=1200 * MI),
        replace(one, then=None),
        replace(one, then=800 * MI, held=900 * MI),
    ]
    found = sums(chronicle, chronicle.courses["worker/default"])
    assert (found.happened, found.roomier, found.imagined) == (5, 2, 1)
    text = digest.text(chronicle)
    assert "5 kills for memory happened. At 2 of them the limit would have been larger by a fifth or more" in text
    assert "3 would have happened all the same." in text
    assert "1 kill would have been added" in text
    shown = page.rendered(chronicle)
    assert [shown.count(f'class="kill {kind}"') for kind in ("happened", "roomier", "imagined")] == [2, 2, 1]
    assert "w-0 held 900 MiB; its limit would have been 800 MiB: it would have been killed." in shown


def test_gib_hours_are_those_of_all_pods_for_the_time_between_two_looks() -> None:
    half = replace(LOOK, requested=(3 * 512 * MI, 3 * 256 * MI), limited=(4096 * MI, 8192 * MI))
    found = sums(chronicle := told(half, half, half, half, minutes=30), chronicle.courses["worker/default"])
    assert found.hours == 2
    assert found.requested == (3.0, 1.5)
    assert found.limited == (8.0, 16.0)
    text = digest.text(chronicle)
    assert "Requested memory would have come to 1.5 GiB hours, instead of 3.0 (50% less)." in text
    assert "Memory limits would have come to 16.0 GiB hours, instead of 8.0 (100% more)." in text
    found = sums(chronicle := told(half, replace(half, limited=None)), chronicle.courses["worker/default"])
    assert found.limited is None, "no limit at some time is not one of 0"
    assert "Memory limits" not in digest.text(chronicle)


def test_time_above_a_limit_and_late_are_counted_in_hours() -> None:
    late = replace(LOOK, waiting=5, wait=31.0, busy=3)
    looks = [late, replace(late, wait=30.0), replace(late, wait=None), replace(LOOK, over=2)]
    found = sums(chronicle := told(*looks, minutes=30), chronicle.courses["worker/default"])
    assert (found.over, found.late) == (0.5, 1.0)
    assert "longer than the objective of 30 s in 1.0 of 2.0 hours" in digest.text(chronicle)
    chronicle = told(LOOK)
    assert sums(chronicle, chronicle.courses["worker/default"]).late is None


def test_a_finding_is_told_for_as_long_as_it_held_and_what_is_only_assumed_is_not() -> None:
    chronicle = Chronicle("airflow", "A test.", 30)
    for number, reasons in enumerate([("A",), ("A", "GracePeriodTooShort"), (), ("A", "B")]):
        found = [Finding(reason, Severity.INFO, "t", f"{reason} {number}", NOW) for reason in reasons]
        chronicle.note(NOW + number * MINUTE, {}, (), found)
    chronicle.close()
    said = [(one.reason, one.first, one.last, one.looks, one.message) for one in chronicle.said]
    assert said == [
        ("A", NOW, NOW + MINUTE, 2, "A 1"),
        ("A", NOW + 3 * MINUTE, NOW + 3 * MINUTE, 1, "A 3"),
        ("B", NOW + 3 * MINUTE, NOW + 3 * MINUTE, 1, "B 3"),
    ]


def path(values: list[float | None], *, area: bool = False) -> str:
    moments = [NOW + number * MINUTE for number in range(len(values))]
    text = plot.drawn("t", "d", moments, [Line("n", "x", values, area=area)], [], Axis(str))
    return next(iter(re.findall(r'<path class="x" d="([^"]*)"', text)), "")


def test_a_line_goes_in_steps_and_has_gaps_where_nothing_is_known() -> None:
    assert path([1, 1, 2, 2]).count("V") == 1
    assert path([1, None, 2]).count("M") == 2
    assert path([None, None]) == ""
    assert path([1, None, 2], area=True).count("Z") == 2


def test_a_long_time_takes_no_more_room_than_the_plot_is_wide_and_loses_no_peak() -> None:
    values: list[float | None] = [float(number % 7) for number in range(20000)]
    values[12345] = 100.0
    assert path(values, area=True).count("L") <= plot.COLUMNS + 2
    highest = min(float(y) for y in re.findall(r"L[\d.]+,([\d.]+)", path(values, area=True)))
    assert highest == plot.TOP


@pytest.mark.parametrize(
    ("most", "base", "step"),
    [(1.0, 10, 0.5), (37, 10, 10), (90, 10, 50), (3 * 2**30, 2, 2**30), (900 * MI, 2, 256 * MI)],
)
def test_lines_across_are_at_round_values(most: float, base: int, step: float) -> None:
    text = plot.drawn(
        "t", "d", [NOW, NOW + MINUTE], [Line("n", "x", [most, most])], [], Axis(lambda at: f"{at:g}", base)
    )
    assert f">{step:g}</text>" in text
    assert 2 <= len(re.findall('text-anchor="end"', text)) <= plot.TICKS + 3


@pytest.mark.parametrize("hours", [1, 30, 24 * 14, 24 * 100])
def test_times_along_are_told_about_a_dozen_times(hours: int) -> None:
    text = plot.drawn("t", "d", [NOW, NOW + timedelta(hours=hours)], [], [Mark(1, "change", "m")], Axis(str))
    assert 3 <= len(re.findall('text-anchor="start"', text)) <= 15


def test_simulate_writes_the_same_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    crowd = Load("crowd", 100, 20, bursts=(Burst(60, hour=1.0),))
    story = Scenario("crowd", "Many at once.", (crowd,), workers=2, slots=2, warm_up=0, days=1)
    monkeypatch.setattr(scenarios, "SCENARIOS", {"crowd": story})
    report = tmp_path / "report.html"
    result = CliRunner().invoke(main, ["simulate", "crowd", "--memory", "500Mi", "--html", str(report)])
    assert result.exit_code == 0, result.output
    text = report.read_text()
    Tags(text)
    told_kills = sum(int(found) for found in re.findall(r"(\d+) kills?,", result.stdout))
    assert told_kills > 0
    assert f"{told_kills} kill{'s' if told_kills > 1 else ''} for memory happened." in text
    assert "airflow-tuner made" in text
    assert "limit as the user set it" in text
    assert "would have" not in text, "nothing is only imagined in it"
    assert CliRunner().invoke(main, ["simulate", "crowd", "--html", str(tmp_path / "no" / "x.html")]).exit_code == 2

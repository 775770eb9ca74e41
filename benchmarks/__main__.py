"""`make bench`: the tuner against its peers, as a table; and the page of it."""

import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from airflow_tuner.fleet.scenarios import SCENARIOS
from airflow_tuner.sentence import counted
from benchmarks import page, seeds
from benchmarks.run import CONTROLLERS, played
from benchmarks.score import Score

RESULTS = seeds.ROOT / ".bench"
PAGE = seeds.ROOT / "docs" / "benchmarks.md"
MARK = "<!-- Below this line `make bench PAGE=1` writes. -->"


@dataclass(frozen=True, slots=True)
class Run:
    """One of all."""

    scenario: str
    seed: int
    controller: str
    days: int | None
    ablation: tuple[str, ...] = ()

    @property
    def file(self) -> Path:
        """Where its score is kept: it is not run twice with the same code."""
        told = [self.scenario, str(self.seed), self.controller, str(self.days or "all"), *self.ablation]
        return RESULTS / seeds.behind(tuner=self.controller == "tuner") / f"{'+'.join(told)}.json"

    def score(self) -> Score:
        """Out of the file, else played."""
        if self.file.exists():
            return Score(**json.loads(self.file.read_text()))
        found = played(self.scenario, self.seed, self.controller, self.days, self.ablation)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(found.document()))
        partial.replace(self.file)
        return found


def _chosen(told: str, known: list[str], what: str) -> list[str]:
    names = [name for name in told.replace(",", " ").split() if name] or known
    if unknown := [name for name in names if name not in known]:
        msg = f"there is no {what} {', '.join(unknown)}; there are: {', '.join(known)}"
        raise click.UsageError(msg)
    return names


def _played(runs: list[Run], jobs: int) -> Iterator[Score]:
    """The scores, as they come, with a word on how far it is."""
    begun = time.monotonic()
    with ProcessPoolExecutor(jobs) as pool:
        for number, (run, found) in enumerate(zip(runs, pool.map(Run.score, runs), strict=True), start=1):
            click.echo(
                f"{number} of {counted(len(runs), 'run', 'runs')} after {time.monotonic() - begun:.0f} s: "
                f"{run.scenario} {run.seed} {found.controller}",
                err=True,
            )
            yield found


@click.command()
@click.option("--scenario", default="", help="Stories, by name; all where none is named.")
@click.option("--controller", default="", help="Who is in charge, by name; the oracle is always there.")
@click.option(
    "--days", type=int, help="Scored days instead of the whole story; more where what it is about comes later."
)
@click.option("--seeds", "chosen", default="report", help="`report`, `design`, or numbers.")
@click.option("--ablation", default="", help="Constants of the core, e.g. concurrency.IDLE_MARGIN=9 (tuner only).")
@click.option("--jobs", default=1, show_default=True, help="Processes.")
@click.option("--page", "write", is_flag=True, help="Write docs/benchmarks.md.")
def main(scenario: str, controller: str, days: int | None, chosen: str, ablation: str, jobs: int, write: bool) -> None:
    """Play the stories, and print who did how."""
    known = {"report": seeds.report(), "design": seeds.DESIGN}
    numbers = known.get(chosen) or tuple(int(one) for one in chosen.replace(",", " ").split())
    names = _chosen(controller, [*CONTROLLERS], "controller")
    stories = _chosen(scenario, [*SCENARIOS], "story")
    runs = [
        Run(story, number, name, _lasting(story, days))
        for story in stories
        for number in numbers
        for name in dict.fromkeys(["oracle", *names])
    ]
    if constants := tuple(ablation.split()):
        runs += [
            Run(story, number, "tuner", _lasting(story, days), constants) for story in stories for number in numbers
        ]
    scores = list(_played(runs, jobs))
    click.echo(f"\n{page.text(page.summary(scores))}\n\n{page.text(page.by_story(scores))}")
    if write:
        _write(scores, numbers, days)


def _lasting(story: str, days: int | None) -> int | None:
    """Scored days of a story; `None`: all of them."""
    return None if days is None else max(days, SCENARIOS[story].telling)


def _write(scores: list[Score], numbers: tuple[int, ...], days: int | None) -> None:
    """The page below its mark; what stands above is written by hand."""
    stories = dict.fromkeys(one.scenario for one in scores)
    longer = [f"{_lasting(one, days)} of {one}" for one in stories if _lasting(one, days) != days]
    lasting = ", ".join([f"{days} scored days each", *longer]) if days else "all days of each story"
    parts = [
        PAGE.read_text().partition(MARK)[0] + MARK,
        f"`{' '.join(['make bench', *_arguments()])}`, {datetime.now(UTC):%Y-%m-%d}, "
        f"deciding code {seeds.fingerprint()}, {counted(len(stories), 'story', 'stories')}, seeds "
        f"{', '.join(map(str, numbers))}, {lasting}.",
        page.markdown(page.summary(scores)),
        "Requested memory against the oracle's, and kills per run, by story:",
        page.markdown(page.by_story(scores)),
    ]
    PAGE.write_text("\n\n".join(parts) + "\n")


def _arguments() -> list[str]:
    """The options as variables of make."""
    given = iter(sys.argv[1:])
    return [f"{one.removeprefix('--').upper()}={1 if one == '--page' else repr(next(given))}" for one in given]


if __name__ == "__main__":
    main()

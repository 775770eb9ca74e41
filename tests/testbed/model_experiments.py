"""What `make prove CASE=confusion-model` measures: causes and healthy days in a modelled Airflow, and what is found.

The core is the real one and asks a real Prometheus. The seeds of the report derive from the code that decides.
"""

import hashlib
import os
import pickle
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import airflow_tuner
from testbed.cache import cache_folder
from testbed.model_causes import CAUSES, PAIRS, Case, alone, matches, together
from testbed.model_days import lived
from testbed.model_judge import Look, asked, judged, named
from testbed.model_world import DAY, START
from testbed.processes import Area
from testbed.programs import build
from testbed.telling import say

DECIDING = (
    "lag",
    "stranded",
    "runaway",
    "signals",
    "questions",
    "namings",
    "singles",
    "executor",
    "local",
    "crash",
    "witness",
    "telemetry",
    "kills",
    "footprint",
    "concurrency",
    "parsing",
)
SEEDS = 5
"""Of each cause, weak and plain."""

AIRFLOWS, DAYS = 10, 10.0
"""Healthy ones, and days of each."""

AT_ONCE = 4
"""Cases of which one Prometheus knows."""

PROCESSES = 2


def frozen() -> str:
    """The hash of the code that decides."""
    package = Path(airflow_tuner.__file__).parent
    files = [*sorted((package / "diagnose").glob("*.py")), *(package / f"{name}.py" for name in DECIDING)]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _played() -> str:
    """The hash of the model, and of what is played with it."""
    fleet = sorted((Path(airflow_tuner.__file__).parent / "fleet").glob("*.py"))
    worlds = [Path(__file__).with_name(f"model_{name}.py") for name in ("pods", "world", "causes", "days", "judge")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in (*fleet, *worlds))).hexdigest()


def seeds(number: int) -> list[int]:
    """The seeds of the report: nobody can have tuned anything to them, as any change makes others."""
    return [int(hashlib.sha256(f"{frozen()} {one}".encode()).hexdigest()[:8], 16) for one in range(number)]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one case. Times are seconds after the cause."""

    case: str
    plain: bool
    found: tuple[float | None, ...]
    """When each finding that should be there came."""
    first: tuple[bool, ...]
    """Whether each was the worst that was told then, or the first of its severity."""
    false: Mapping[str, int]
    """Findings that follow from none of the causes, with the looks that had them."""
    before: Mapping[str, int]
    """Findings before the cause, with the looks that had them."""
    follows: tuple[str, ...]
    """Other findings, that were accepted beforehand."""
    forbidden: tuple[float, ...]
    """For how long what would do harm was said: before the finding that forbids it, and beside it."""


def outcome(case: Case, looks: Sequence[Look]) -> Outcome:
    """What came of a case."""
    begin = START + case.history
    after = [look for look in looks if look.at >= begin]
    found: list[float | None] = []
    first = []
    for wanted in case.wanted:
        look = next((one for one in after if any(matches(name, wanted) for name in one.names)), None)
        found.append(None if look is None else look.at - begin)
        first.append(look is not None and _leads(look, wanted, case.wanted))
    names = Counter(name for look in after for name in look.names)
    false = {name: count for name, count in names.items() if not matches(name, case.follows)}
    before = Counter(name for look in looks if look.at < begin for name in look.names)
    wanted_all = tuple(pattern for wanted in case.wanted for pattern in wanted)
    follows = {name for name in names if matches(name, case.follows) and not matches(name, wanted_all)}
    return Outcome(
        case.name,
        case.plain,
        tuple(found),
        tuple(first),
        false,
        before,
        tuple(sorted(follows)),
        _harmful(case, after, found[0], begin),
    )


def _leads(look: Look, wanted: tuple[str, ...], all_wanted: Sequence[tuple[str, ...]]) -> bool:
    """Whether the finding is the first of its severity, but for those of the other cause."""
    others = tuple(pattern for one in all_wanted if one != wanted for pattern in one)
    own = next(finding for finding in look.findings if matches(named(finding), wanted))
    ahead = [one for one in look.findings if one.severity is own.severity and not matches(named(one), others)]
    return matches(named(ahead[0]), wanted)


def _harmful(case: Case, after: Sequence[Look], found: float | None, begin: float) -> tuple[float, ...]:
    """Looks, as seconds of 30 each."""
    told = [look for look in after if any(matches(name, case.forbidden) for name in look.names)]
    until = float("inf") if found is None else found
    beside = [look for look in told if any(matches(name, case.wanted[0]) for name in look.names)]
    return (30.0 * sum(look.at - begin < until for look in told), 30.0 * len(beside))


def play(cases: Sequence[Case]) -> list[Outcome]:
    """Play some cases, and have them judged by one Prometheus."""
    area = Area("confusion")
    try:
        worlds = [case.played(asked) for case in cases]
        looks = judged(area, worlds)
        return [outcome(case, looks[world.name]) for case, world in zip(cases, worlds, strict=True)]
    finally:
        area.clean()


@dataclass(frozen=True, slots=True)
class Lived:
    """What was found in a healthy Airflow."""

    number: int
    what: str
    looks: int
    episodes: Mapping[str, int]
    """Findings, with how many times each began."""
    severities: Mapping[str, str]
    examples: Mapping[str, str]


def live(number: int, seed: int, days: float) -> Lived:
    """Let a healthy Airflow live, and look at it."""
    area = Area("confusion")
    try:
        world = lived(f"healthy-{number}", seed, number, days, asked)
        looks = judged(area, [world])[world.name]
    finally:
        area.clean()
    episodes: Counter[str] = Counter()
    severities: dict[str, str] = {}
    examples: dict[str, str] = {}
    last: set[str] = set()
    for look in looks:
        for finding in look.findings:
            name = named(finding)
            if name not in last:
                episodes[name] += 1
                severities[name] = finding.severity.value
                examples.setdefault(name, f"day {(look.at - START) / DAY:.2f}: {finding.message}")
        last = {*look.names}
    workers = f"{world.workers} x {world.slots} slots"
    asks = "workers answer" if world.broker else "workers are not asked"
    return Lived(number, f"Airflow {world.line}, {workers}, {asks}", len(looks), episodes, severities, examples)


def all_cases(given: Sequence[int]) -> list[Case]:
    """Each cause alone, weak and plain, with each seed, and all pairs with one each."""
    cases = [
        alone(one, seed, number, plain=plain)
        for number, seed in enumerate(given)
        for plain in (False, True)
        for one in CAUSES
    ]
    return cases + [together(pair, given[number % len(given)], number) for number, pair in enumerate(PAIRS)]


def confusion_model() -> str:
    """Causes and healthy days of a modelled Airflow, judged by the real core and a real Prometheus: what was found.

    What is done is kept: where it was stopped, the same code goes on. AIRFLOWS, DAYS: fewer healthy days.
    """
    build(("prometheus", "promtool"))
    airflows, days = int(os.environ.get("AIRFLOWS", AIRFLOWS)), float(os.environ.get("DAYS", DAYS))
    given = seeds(max(SEEDS, AIRFLOWS))
    cases = all_cases(given[:SEEDS])
    # The long ones first, so that no process waits for another at the end.
    cases.sort(key=lambda case: -(case.history + max(one.lasts for one in case.causes)))
    parts = [cases[number : number + AT_ONCE] for number in range(0, len(cases), AT_ONCE)]
    kept = cache_folder() / "confusion" / f"{frozen()[:16]}-{_played()[:16]}"
    kept.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(PROCESSES) as pool:
        played = [pool.submit(_kept, kept / f"part-{number}", partial(play, part)) for number, part in enumerate(parts)]
        lives = [
            pool.submit(_kept, kept / f"airflow-{number}-{days:g}", partial(live, number, given[number], days))
            for number in range(airflows)
        ]
        outcomes: list[Outcome] = []
        for number, one in enumerate(played, 1):
            outcomes += one.result()
            say(f"{number} of {len(played)} parts of the cases are judged")
        healthy = []
        for future in lives:
            healthy.append(future.result())
            say(
                f"Airflow {healthy[-1].number} has lived {days:g} days: {dict(healthy[-1].episodes) or 'nothing found'}"
            )
    return page(outcomes, healthy, days)


def _kept(file: Path, make: Callable[[], Any]) -> Any:  # noqa: ANN401 - what it makes
    """What was made before, or is made now."""
    if file.exists():
        return pickle.loads(file.read_bytes())  # noqa: S301 - of our own
    made = make()
    fresh = file.with_suffix(".new")
    fresh.write_bytes(pickle.dumps(made))
    fresh.replace(file)
    return made


def page(outcomes: Sequence[Outcome], healthy: Sequence[Lived], days: float) -> str:
    """The page of evidence."""
    single = [one for one in outcomes if " + " not in one.case]
    pairs = [one for one in outcomes if " + " in one.case]
    told = [
        f"Code that decides: sha256 `{frozen()}`\n(`diagnose/*.py` and {', '.join(DECIDING)}). The seeds are drawn "
        "from that hash.",
        HOW,
        "## Causes alone\n",
        _causes(single),
        "\n## What was taken to follow\n",
        FOLLOWS,
        _follows(),
        CHANGED,
        "\n## Two causes at once\n",
        _pairs(pairs),
        "\n## By finding\n",
        _findings(outcomes, healthy),
        f"\n## Healthy days\n\n{_healthy(healthy, days)}",
    ]
    return "\n".join(told)


HOW = """
The Airflow is the fleet model (docs/virtual.md), everything else is real: what cAdvisor and Airflow's exporter would
have shown every 30 s became the past of a real Prometheus, which answered the core's own questions at moments of that
past, and the API server's objects of the model were read by the core's own inventory. The status went from look to
look, in mode Recommend, with averages of 300 s. Causes: looks every 30 s (leaks: ten minutes); healthy days: every
390 s. Airflow 3 and 2, with and without the workers' own answers, take turns. Not played: a scrape that fails marks
Airflow's series as ended at once, and a past given to Prometheus cannot hold such marks; nor clocks that differ,
several nodes, several schedulers, several groups of workers, or KEDA.
"""

FOLLOWS = """\
Decided before the seeds were drawn; everything else that came after a cause counts as false. Three were added when
design seeds had shown them, as they do follow: SlotsExhausted with tasks that compute (for 60 s slots are all that
seems to lack), CpuUnknown after a worker's death (its rate needs two scrapes), ParallelismCapped about the workers.
"""
CHANGED = """
## What the experiment changed before the code was frozen

With other seeds. A DAG file of 16 s among 24 of 0.15 s was not named: so slow a file is parsed more seldom than the
others, and seemed to take more than all of them. With `core.parallelism` 4 for 16 slots two looks of 60 said
WorkersIdle: for a moment a task was on its way to a worker. A lock of the database came through the average over five
minutes only after 217 s, and SlotsExhausted was said for 180 s until then; at two minutes it is 97 s and 60 s.

Left as it is: a DAG that runs away is known by its tasks that have ended, 5 to 7 minutes after it began, and until then
SlotsExhausted is said; tasks that compute are told from too few slots by the CPU's average, after 60 s.
"""


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}"


def _times(times: Iterable[float | None]) -> str:
    known = sorted(one for one in times if one is not None)
    if not known:
        return ""
    if known[-1] > 7200:
        return f"{median(known) / 3600:.0f} h, {known[-1] / 3600:.0f} h"
    return f"{median(known):.0f}, {known[-1]:.0f}"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items())) or "none"


def _added(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return total


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _causes(outcomes: Sequence[Outcome]) -> str:
    rows = []
    for one in CAUSES:
        for plain, how in ((False, one.weak), (True, one.plain)):
            of = [item for item in outcomes if (item.case, item.plain) == (one.name, plain)]
            if not of:
                continue
            rows.append(
                (
                    one.name,
                    how,
                    " or ".join(one.wanted),
                    _share(sum(item.found[0] is not None for item in of), len(of)),
                    _share(sum(item.first[0] for item in of), len(of)),
                    _times(item.found[0] for item in of),
                    ", ".join(sorted({name for item in of for name in item.follows})) or "none",
                    _listed(_added(item.false for item in of)),
                    _listed(_added(item.before for item in of)),
                )
            )
    right = sum(item.first[0] for item in outcomes)
    share = f"Right cause first: {right} of {len(outcomes)} ({right / max(1, len(outcomes)):.1%}).\n\n"
    first = "Seconds: to the finding, median and most. False, before: what follows from nothing, with its looks.\n\n"
    head = ("cause", "how", "right finding", "found", "first", "seconds", "came with it", "false", "before")
    return share + first + _table(head, rows)


def _follows() -> str:
    rows = [(one.name, ", ".join(one.follows) or "nothing") for one in CAUSES]
    return _table(("cause", "may follow"), rows)


def _pairs(outcomes: Sequence[Outcome]) -> str:
    rows = []
    by_name = {f"{pair.first} + {pair.second}": pair for pair in PAIRS}
    for one in outcomes:
        pair = by_name[one.case]
        found = ", ".join("missed" if at is None else f"{at:.0f} s" for at in one.found)
        harmful = ""
        if pair.forbidden:
            told, later = one.forbidden
            harmful = f"{', '.join(pair.forbidden)} ({pair.why}): {told:.0f} s before, {later:.0f} s beside"
        named_ones = [getattr(pair, which) for which in pair.wanted]
        rows.append((one.case, ", ".join(named_ones), found, harmful, _listed(one.false)))
    head = ("causes", "must be named", "after", "what would do harm, and for how long it was said", "false")
    return _table(head, rows)


def _findings(outcomes: Sequence[Outcome], healthy: Sequence[Lived]) -> str:
    """By finding: how often it should have come and did, and how often it came for nothing."""
    should: Counter[str] = Counter()
    came: Counter[str] = Counter()
    wrong: defaultdict[str, int] = defaultdict(int)
    by_case: dict[str, tuple[str, ...]] = {one.name: tuple(one.wanted) for one in CAUSES}
    for one in outcomes:
        parts = one.case.split(" + ")
        if len(parts) == 1:
            reason = by_case[one.case][0].split(" ")[0]
            should[reason] += 1
            came[reason] += one.found[0] is not None
        for name in {**one.false, **one.before}:
            wrong[name.split(" ")[0]] += 1
    days: Counter[str] = Counter()
    for lived_one in healthy:
        for name, count in lived_one.episodes.items():
            days[name.split(" ")[0]] += count
    rows = [
        (name, _share(came[name], should[name]) if should[name] else "", str(wrong[name]), str(days[name]))
        for name in sorted({*should, *wrong, *days})
    ]
    return _table(("finding", "came where it should (alone)", "worlds in which it was false", "on healthy days"), rows)


def _healthy(healthy: Sequence[Lived], days: float) -> str:
    total = _added(one.episodes for one in healthy)
    rows = [(str(one.number), one.what, str(one.looks), _listed(one.episodes)) for one in healthy]
    examples = {name: text for one in healthy for name, text in one.examples.items()}
    told = "".join(f"\n{name}, {text}\n" for name, text in sorted(examples.items()))
    looks = sum(one.looks for one in healthy)
    return (
        f"{len(healthy)} Airflows x {days:g} days, {looks} looks: {sum(total.values())} findings "
        "(each counted when it begins). A load with its days and weeks, a weekly batch that keeps the objective, "
        "deploys, drained pods, probes, page cache that grows, failed tasks, and scrapes that fail.\n\n"
        f"{_table(('Airflow', 'what', 'looks', 'findings'), rows)}\n{told}"
    )

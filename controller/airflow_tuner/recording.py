"""What a Prometheus still knows of an Airflow's past: the operator's own questions, asked over a range in parts."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from airflow_tuner import api, observe, prometheus, questions, signals, traces
from airflow_tuner.errors import Unavailable
from airflow_tuner.namings import CHART, NAMINGS, Naming, chosen
from airflow_tuner.prometheus import HOUR, Prometheus, TooMuch, Track, moment
from airflow_tuner.signals import Scope, Series, Signal

PART = 86400
"""Seconds of a part: at a look a minute 1440 values of each series, of the 11,000 that Prometheus answers at most."""

FEWEST = 12
"""Looks that a part is not divided below where an answer was too large or too late."""

AT_ONCE = 2
"""Questions under way: it is somebody's Prometheus, at work."""

WHERE = Signal(
    "where",
    f'count by (namespace) (container_memory_rss{{container=~"{prometheus.CONTAINERS}",$cluster}})',
    "containers",
    "it does not scrape the kubelets' cAdvisor",
)
"""The namespaces that have containers of an Airflow's names."""

SINCE = Signal("since", "count(container_memory_rss{$container})", "containers", "there were none")

Values = Mapping[str, tuple[Series, ...]]


@dataclass(frozen=True, slots=True)
class Moment:
    """What was known at one moment."""

    at: datetime
    values: Values
    """By the names of the signals and of their parts."""
    naming: str


@dataclass(slots=True)
class Recording:
    """The past of one Airflow in one Prometheus."""

    source: Prometheus
    spec: api.Spec
    namespace: str
    times: range
    """Moments, in seconds since 1970."""
    rounds: int
    """Seconds that hold whole rounds of parsing."""
    airflow: bool
    """Airflow's own series are asked for."""
    missing: dict[str, str] = field(default_factory=dict)
    """Signals that could not be read, and what that means."""
    naming: str = ""

    @property
    def scope(self) -> Scope:
        """Whose series are asked for."""
        return prometheus.scope(self.spec.metrics, self.namespace, self.rounds)

    async def begins(self) -> int | None:
        """The first of an hour's moments that has containers; `None`: none has."""
        known = [at for item in await self._hourly(SINCE) for at in item.values]
        return min(known, default=None)

    async def namespaces(self) -> tuple[list[str], list[str]]:
        """The namespaces that had containers of such names in that time, and those that have some now."""
        then, now = await self._hourly(WHERE), await self.source.ask(WHERE, self.scope)
        return _names(item.labels for item in then), _names(item.labels for item in now)

    async def _hourly(self, signal: Signal) -> list[Track]:
        hourly = range(self.times[0], self.times[-1] + 1, max(self.times.step, HOUR))
        return [track for part in parts(hourly, 7 * PART) for track in await self._over(signal, part)]

    async def moments(self, told: Callable[[range], None]) -> AsyncIterator[Moment]:
        """All moments, one after another. `told` hears what is read next."""
        for part in parts(self.times, PART):
            told(part)
            await self._name(part)
            asked = [*observe.wanted(airflow=self.airflow, cpu=self.spec.tunes_cpu), traces.objects(self.times.step)]
            asked += questions.AIRFLOW if self.airflow else ()
            gate = asyncio.Semaphore(AT_ONCE)
            answers = dict(await asyncio.gather(*(self._gated(gate, signal, part) for signal in asked)))
            for at in part:
                values: dict[str, tuple[Series, ...]] = {}
                for signal, answer in answers.items():
                    values |= signals.parted(self._named(signal, answer.get(at, ())), signal)
                yield Moment(moment(at), values, self.naming)

    async def _gated(
        self, gate: asyncio.Semaphore, signal: Signal, part: range
    ) -> tuple[Signal, dict[int, tuple[Series, ...]]]:
        async with gate:
            try:
                tracks = await self._over(signal, part)
            except Unavailable as error:
                if signal in signals.MEMORY:
                    raise
                self.missing[signal.name] = f"{error} {signal.absence}"
                tracks = ()
        answers: dict[int, list[Series]] = {}
        for track in tracks:
            for at, value in track.values.items():
                answers.setdefault(at, []).append(Series(track.labels, value))
        return signal, {at: tuple(found) for at, found in answers.items()}

    async def _over(self, signal: Signal, part: range) -> tuple[Track, ...]:
        """The answer to a question, by halves where it is too much at once."""
        scope = self.scope
        if signal in questions.AIRFLOW:
            scope = replace(scope, naming=self._on)
        try:
            return await self.source.ask_over(signal, scope, part)
        except TooMuch:
            if len(part) < 2 * FEWEST:
                raise
            middle = len(part) // 2
            return (*await self._over(signal, part[:middle]), *await self._over(signal, part[middle:]))

    async def _name(self, part: range) -> None:
        """How Airflow's series were named in this part; where that is not seen, as in the one before."""
        if self.spec.metrics.naming is not None:
            self.naming = self.spec.metrics.naming
            return
        if not self.airflow:
            return
        found = await self._over(questions.NAMED, range(part[0], part[-1] + 1, max(part.step, HOUR)))
        moved: dict[str, float] = {}
        for track in found:
            name = track.labels.get("signal", "")
            moved[name] = max([moved.get(name, 0.0), *track.values.values()])
        on = chosen(moved)
        self.naming = on.name if on else self.naming

    @property
    def _on(self) -> Naming:
        return NAMINGS.get(self.naming, CHART)

    def _named(self, signal: Signal, found: tuple[Series, ...]) -> tuple[Series, ...]:
        return signals.canonical(found, self._on) if signal in questions.AIRFLOW else found


def _names(labels: Iterable[Mapping[str, str]]) -> list[str]:
    return sorted({item.get("namespace", "") for item in labels})


def parts(times: range, seconds: int) -> Iterator[range]:
    """The moments in parts of so many seconds at most."""
    each = max(1, seconds // times.step)
    for begin in range(0, len(times), each):
        yield times[begin : begin + each]

"""The dag-processor: it parses each DAG file anew after an interval, with so many processes."""

import math
from collections import deque
from dataclasses import dataclass, field
from itertools import takewhile

from airflow_tuner.fleet import settings
from airflow_tuner.fleet.container import Birth, Container, Process, Surroundings
from airflow_tuner.fleet.exporter import Exporter

SHORTEST = 0.05
"""Seconds of any parse: a process is forked for it."""

TOLD_EVERY = 30.0
"""Seconds between two looks at how long ago each file was parsed."""

LOOP = 1.0
"""Seconds between two looks at which files are due, at most."""


@dataclass(slots=True)
class Folder:
    """The DAG files."""

    files: dict[str, float] = field(default_factory=dict)
    """CPU seconds that a parse of each takes."""
    broken: set[str] = field(default_factory=set)
    """Those that cannot be imported."""


class DagProcessor(Container):
    """A dag-processor's container."""

    def __init__(self, birth: Birth, around: Surroundings, folder: Folder, exporter: Exporter) -> None:
        super().__init__(birth, around)
        self._folder, self._exporter = folder, exporter
        self.interval, self.parsers, self.scan_interval = settings.parsing(birth.environment, around.line)
        self.known: dict[str, float] = {}
        """When each file was parsed last, oldest first; minus infinity: never."""
        self._queue: deque[str] = deque()
        self._parsing: dict[str, float] = {}
        self._failed: set[str] = set()
        self._round_began = self._scan_at = self._tell_at = self._look_at = 0.0

    def begun(self, at: float) -> None:
        """It looks for files, and begins with all of them."""
        self._scan_at = self._look_at = at
        self._tell_at = at + TOLD_EVERY
        self.woken(at)

    def woken(self, at: float) -> None:
        """Look for new files, tell of the known ones, and begin a round, each in its time."""
        if self._scan_at <= at:
            self._scan(at)
        if self._tell_at <= at:
            self._tell_at = at + TOLD_EVERY
            self._exporter.beats("dag_processor", TOLD_EVERY)
            self._exporter.import_errors(len(self._failed))
            for name, parsed in self.known.items():
                if parsed > -math.inf:
                    self._exporter.parsed_ago(name, at - parsed)
        if self._look_at <= at:
            self._begin_round(at)
        self.alarm = min(self._scan_at, self._tell_at, self._look_at)

    def ended(self, process: Process, at: float) -> None:
        """A file is parsed."""
        if process.what == "parse":
            name = str(process.subject)
            self._exporter.parsed(name, at - self._parsing[name])
            (self._failed.add if name in self._folder.broken else self._failed.discard)(name)
            self._close(name, at)

    def killed(self, process: Process, at: float) -> None:
        """A parse is broken off; the file has its next turn like the others."""
        if process.what == "parse":
            self._forget(str(process.subject), at)
            self._look_at = min(self._look_at, at + LOOP)
            self.alarm = min(self.alarm, self._look_at)

    def _scan(self, at: float) -> None:
        self._scan_at = at + self.scan_interval
        for name in [name for name in self.known if name not in self._folder.files]:
            del self.known[name]
            self._failed.discard(name)
        new = [name for name in self._folder.files if name not in self.known]
        self.known = dict.fromkeys(new, -math.inf) | self.known
        if new and not self._queue:
            self._look_at = at
        self._exporter.dag_bag(len(self.known))

    def _begin_round(self, at: float) -> None:
        if not self._queue:
            self._exporter.parse_time(at - self._round_began)
            self._round_began = at
            due = takewhile(lambda item: item[1] + self.interval <= at, self.known.items())
            self._queue.extend(name for name, _ in due if name not in self._parsing)
        self._fill(at)

    def _fill(self, at: float) -> None:
        while self._queue and len(self._parsing) < self.parsers:
            name = self._queue.popleft()
            if name in self.known:
                self._parsing[name] = at
                seconds = max(self._folder.files.get(name, 0.0), SHORTEST)
                self.processes.append(Process("parse", seconds, 1.0, self.laws.parse_process, name))
        self._exporter.parse_queue(len(self._queue))
        self._look_at = math.inf if self._queue else self._next_round(at)
        self.alarm = min(self._scan_at, self._tell_at, self._look_at)

    def _next_round(self, at: float) -> float:
        oldest = next((parsed for name, parsed in self.known.items() if name not in self._parsing), math.inf)
        return max(oldest + self.interval, at + LOOP)

    def _close(self, name: str, at: float) -> None:
        self._forget(name, at)
        self._fill(at)

    def _forget(self, name: str, at: float) -> None:
        del self._parsing[name]
        if self.known.pop(name, None) is not None:
            self.known[name] = at

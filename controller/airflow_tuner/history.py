"""The most memory, or CPU, of each hour over weeks: what is foreseen rests on it. Pure."""

import base64
import binascii
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

WEEK = 7 * 24

KNOWN_OF_WEEK = 120
"""Hours of the last week that must be known for its peak to have been seen."""

HOURS = 9 * WEEK
"""Hours that are kept: nine weeks hold two month-ends."""

MOST = 2**32 - 1
"""The largest peak that can be packed."""

SECONDS = 3600


@dataclass(frozen=True, slots=True)
class History:
    """The peak of each hour, one after another."""

    first: int = 0
    """The first hour, counted from the epoch in UTC."""
    peaks: tuple[int | None, ...] = ()
    """In MiB, thousandths of a core, or as its name says; `None`: not known."""

    @property
    def end(self) -> int:
        """The hour after the last."""
        return self.first + len(self.peaks)

    @property
    def known(self) -> int:
        """Hours that are known."""
        return len(self.peaks) - self.peaks.count(None)

    def week_before(self, hour: int) -> tuple[int, bool]:
        """How many hours of the week before an hour are known, and whether those tell of the whole week."""
        week = self.between(hour - WEEK, hour)
        known = len(week) - week.count(None)
        # Also its beginning, where its first day may have been the busiest.
        return known, known >= KNOWN_OF_WEEK and any(
            peak is not None for peak in self.between(hour - WEEK, hour - WEEK + 12)
        )

    def at(self, hour: int) -> int | None:
        """The peak of an hour; `None`: not known."""
        return self.peaks[hour - self.first] if self.first <= hour < self.end else None

    def between(self, first: int, end: int) -> tuple[int | None, ...]:
        """The peaks from an hour on and before another, of those that the history holds."""
        return self.peaks[max(0, first - self.first) : max(0, end - self.first)]

    def noted(self, hour: int, peak: int) -> "History":
        """With this peak seen in an hour: the larger counts. An hour before the last is not changed any more."""
        if not self.peaks:
            return History(hour, (peak,))
        if hour < self.end - 1:
            return self
        if hour == self.end - 1:
            last = self.peaks[-1]
            if last is not None and last >= peak:
                return self
            return History(self.first, (*self.peaks[:-1], peak))
        missed = min(hour - self.end, HOURS)
        peaks = (*self.peaks, *[None] * missed, peak)[-HOURS:]
        return History(hour + 1 - len(peaks), peaks)

    def filled(self, first: int, peaks: Sequence[int | None]) -> "History":
        """With what a metrics source says of past hours, where nothing better is known."""
        if (
            self.first <= first
            and first + len(peaks) <= self.end
            and all(peak is None or (self.at(hour) or 0) >= peak for hour, peak in enumerate(peaks, first))
        ):
            return self
        start, end = min(self.first if self.peaks else first, first), max(self.end, first + len(peaks))
        start = max(start, end - HOURS)

        def most(hour: int) -> int | None:
            own = self.at(hour)
            told = peaks[hour - first] if first <= hour < first + len(peaks) else None
            return max((one for one in (own, told) if one is not None), default=None)

        return History(start, tuple(most(hour) for hour in range(start, end)))


def of_tasks(target: str) -> str:
    """The name under which the tasks of a group of workers have their history, beside that of its memory."""
    return f"{target} tasks"


def of_cpu(target: str) -> str:
    """The name under which the CPU of a target has its history."""
    return f"{target} cpu"


def of_leak(target: str) -> str:
    """The name under which the pace of a target's leak has its history, in KiB per hour."""
    return f"{target} leak"


def hour_of(at: datetime) -> int:
    """The hour that a time is in, counted from the epoch in UTC."""
    return int(at.astimezone(UTC).timestamp()) // SECONDS


def packed(history: History) -> str:
    """As text: `first:` and the peaks in base64."""
    # 0 stands for an hour that is not known; what is less than one is one.
    numbers = array("I", (0 if peak is None else min(max(1, peak), MOST) for peak in history.peaks))
    return f"{history.first}:{base64.b64encode(zlib.compress(numbers.tobytes(), 9)).decode()}"


def unpacked(text: str) -> History:
    """What was packed; nothing where it cannot be read: it is learned anew."""
    first, _, peaks = text.partition(":")
    try:
        start = int(first)
        unpacker = zlib.decompressobj()
        # A checkpoint may say anything: no more is read than is ever packed.
        numbers = array("I", unpacker.decompress(base64.b64decode(peaks, validate=True), HOURS * 4))
    except (ValueError, binascii.Error, zlib.error):
        return History()
    return History(start, tuple(number or None for number in numbers))

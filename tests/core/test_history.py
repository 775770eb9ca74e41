"""The memory of past hours: what is noted, what is filled in, what a checkpoint keeps."""

import base64
import zlib

from hypothesis import given
from hypothesis import strategies as st

from airflow_tuner.history import HOURS, MOST, History, packed, unpacked

PEAKS = st.lists(st.none() | st.integers(1, MOST), max_size=50)


def test_the_larger_peak_of_an_hour_counts_and_hours_without_one_are_not_known() -> None:
    history = History().noted(100, 700).noted(100, 600).noted(100, 800).noted(103, 500)
    assert history == History(100, (800, None, None, 500))
    assert [history.at(hour) for hour in (99, 100, 101, 103, 104)] == [None, 800, None, 500, None]
    assert (history.known, history.end) == (2, 104)


def test_an_hour_that_is_over_is_not_changed_any_more() -> None:
    history = History(100, (800, 500))
    assert history.noted(100, 900) is history


def test_nine_weeks_are_kept_also_after_a_long_silence() -> None:
    history = History()
    for hour in range(HOURS + 10):
        history = history.noted(hour, hour + 1)
    assert (history.first, len(history.peaks), history.peaks[-1]) == (10, HOURS, HOURS + 10)
    late = history.noted(history.end + 5 * HOURS, 7)
    assert (len(late.peaks), late.known, late.end) == (HOURS, 1, history.end + 5 * HOURS + 1)


def test_what_the_metrics_source_says_of_the_past_fills_the_gaps_and_takes_nothing_away() -> None:
    own = History(100, (800, None, 500))
    assert own.filled(98, [600, None, 700, 400]) == History(98, (600, None, 800, 400, 500))
    assert History().filled(98, [600, None]) == History(98, (600, None))


@given(st.integers(0, 10**7), PEAKS)
def test_what_is_packed_is_unpacked(first: int, peaks: list[int | None]) -> None:
    history = History(first, tuple(peaks))
    assert unpacked(packed(history)) == history


@given(st.text(max_size=60) | st.from_regex(r"[0-9]{1,9}:[A-Za-z0-9+/]{0,40}={0,2}", fullmatch=True))
def test_a_checkpoint_that_says_nonsense_is_no_history(text: str) -> None:
    assert len(unpacked(text).peaks) <= HOURS


def test_a_checkpoint_cannot_say_more_than_is_ever_kept() -> None:
    bomb = base64.b64encode(zlib.compress(bytes(4) * 10**6)).decode()
    assert len(unpacked(f"0:{bomb}").peaks) <= HOURS


def test_nine_weeks_fit_into_the_field_of_the_checkpoint() -> None:
    history = History(495_000, tuple(1 + (hour * 7919) % 65_536 for hour in range(HOURS)))
    assert len(packed(history)) < 16_384

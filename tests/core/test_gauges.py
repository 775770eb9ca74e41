"""What samples of a container come to over time."""

from datetime import UTC, datetime, timedelta

from airflow_tuner.gauges import Gauge, Reading, Row, reading
from airflow_tuner.scraped import Container

MI = 2**20
BEGIN = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
STALE = timedelta(seconds=300)
V1 = {
    "memory_stats": {
        "usage": 148 * MI,
        "max_usage": 200 * MI,
        "stats": {"total_rss": 4 * MI, "total_inactive_file": 140 * MI, "rss": MI},
    },
    "cpu_stats": {
        "cpu_usage": {"total_usage": 3 * 10**9},
        "throttling_data": {"periods": 10, "throttled_periods": 4},
    },
}
V2 = {
    "memory_stats": {"usage": 148 * MI, "stats": {"anon": 4 * MI, "inactive_file": 140 * MI, "file": 143 * MI}},
    "cpu_stats": {"cpu_usage": {"total_usage": 3 * 10**9}},
}


def held(size: int, *, cpu: float = 0.0, periods: int = 0, throttled: int = 0) -> Reading:
    """A sample with this much anonymous memory, in MiB."""
    return Reading(size * MI, (size + 10) * MI, (size + 20) * MI, cpu, periods, throttled)


def test_cgroups_of_both_versions_are_read() -> None:
    old, new = reading(V1), reading(V2)
    assert old == Reading(4 * MI, 8 * MI, 200 * MI, 3.0, 10, 4)
    assert new == Reading(4 * MI, 8 * MI, None, 3.0, 0, 0), "version 2 does not tell the peak"


def test_a_container_that_does_not_run_has_no_sample() -> None:
    assert reading({"memory_stats": {}, "cpu_stats": {}}) is None
    assert reading({}) is None


def test_the_most_of_a_minute_counts_at_once_and_is_kept_when_it_is_over() -> None:
    gauge = Gauge(Container("c"))
    for second, size in ((0, 100), (5, 300), (10, 120)):
        assert gauge.add(held(size, cpu=second / 2), BEGIN + timedelta(seconds=second), None) is None
    now = BEGIN + timedelta(seconds=10)
    usage = gauge.usage(now, [], STALE, 0.25)
    assert usage.anonymous is not None
    assert usage.anonymous.value == 300 * MI
    assert usage.cpu is None, "nothing is known of a whole minute yet"
    row = gauge.add(held(110, cpu=30), BEGIN + timedelta(seconds=60), 0.25)
    assert row == Row("c", int(BEGIN.timestamp()) // 60, 300 * MI, 310 * MI, 0.5)
    usage = gauge.usage(BEGIN + timedelta(seconds=60), [], STALE, 0.25)
    assert usage.cpu is not None
    assert usage.anonymous is not None
    assert usage.node_cpu is not None
    assert usage.peak is not None
    assert (usage.cpu.value, usage.anonymous.value, usage.node_cpu.value) == (0.5, 300 * MI, 0.25)
    assert usage.peak.value == 130 * MI, "the kernel's own, of this container's life"


def test_kills_are_known_by_their_times_also_without_a_sample() -> None:
    gauge = Gauge(Container("c"))
    now = BEGIN + timedelta(hours=2)
    usage = gauge.usage(now, [BEGIN, now - timedelta(minutes=5)], STALE, None)
    assert usage.process_kills is not None
    assert usage.process_kills_before is not None
    assert (usage.process_kills.value, usage.process_kills.at) == (2, now - timedelta(minutes=5))
    assert usage.process_kills_before.value == 1
    assert usage.working_set is None


def test_a_stale_sample_is_none() -> None:
    gauge = Gauge(Container("c"))
    gauge.add(held(100), BEGIN, None)
    assert gauge.usage(BEGIN + timedelta(seconds=299), [], STALE, None).anonymous is not None
    assert gauge.usage(BEGIN + timedelta(seconds=301), [], STALE, None).anonymous is None


def test_what_an_earlier_process_kept_is_taken_up_but_says_nothing_of_now_after_a_pause() -> None:
    first, minute = int(BEGIN.timestamp()) // 60, 60
    gauge = Gauge(Container("c"))
    for number in range(10):
        gauge.keep(Row("c", first + number, (500 if number == 2 else 100) * MI, 100 * MI, 0.1))
    soon = BEGIN + timedelta(seconds=10 * minute)
    gauge.add(held(120), soon, None)
    usage = gauge.usage(soon, [], STALE, None)
    assert usage.anonymous_day is not None
    assert usage.anonymous is not None
    assert (usage.anonymous_day.value, usage.anonymous.value) == (500 * MI, 120 * MI)
    assert usage.cpu is not None
    late, another = BEGIN + timedelta(hours=1), Gauge(gauge.series)
    another.add(held(130), late, None)
    assert another.usage(late, [], STALE, None).cpu is None


def test_the_share_of_throttled_periods_is_of_the_window() -> None:
    gauge = Gauge(Container("c"))
    gauge.add(held(100, periods=1000, throttled=900), BEGIN, None)
    gauge.add(held(100, periods=1100, throttled=925), BEGIN + timedelta(seconds=30), None)
    throttled = gauge.usage(BEGIN + timedelta(seconds=30), [], STALE, None).throttled
    assert throttled is not None
    assert throttled.value == 0.25

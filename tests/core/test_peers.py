"""The peers' rules give the figures that the real ones are known for."""

import pytest

from benchmarks import autopilot, krr, vpa

MI = 2**20


def peaks(*sizes: int, containers: int = 1) -> tuple[vpa.Histogram, list[vpa.Container]]:
    """One peak a day, in MiB, of each container."""
    histogram = vpa.Histogram()
    made = [vpa.Container(histogram) for _ in range(containers)]
    for day, size in enumerate(sizes):
        for container in made:
            container.sample(size * MI, day * vpa.DAY)
    return histogram, made


def target(histogram: vpa.Histogram, days: float = 8) -> float:
    """In MiB."""
    return vpa.recommended(histogram, days).target / MI


def test_vpa_gives_the_figure_that_its_users_see() -> None:
    histogram, _ = peaks(*[900] * 8)
    # As in many public listings of `kubectl get vpa`.
    assert int(vpa.recommended(histogram, 8).target) == 1_102_117_711


def test_vpa_recommends_no_less_than_its_floor() -> None:
    histogram, _ = peaks(*[20] * 8)
    assert target(histogram) == 250


@pytest.mark.parametrize(("killed", "size"), [(3, 1181), (4, 2838)])
def test_vpa_sees_kills_only_where_a_fifth_of_the_pods_has_them_on_one_day(killed: int, size: int) -> None:
    histogram, containers = peaks(*[1000] * 8, containers=20)
    for container in containers[:killed]:
        for again in range(3):
            container.killed(2000 * MI, 7 * vpa.DAY + 3600 * again)
    assert round(target(histogram)) == size


@pytest.mark.parametrize(("age", "size"), [(0, 4761), (2, 4761), (3, 1181), (6, 1181)])
def test_vpa_forgets_a_peak_within_three_days(age: int, size: int) -> None:
    histogram, _ = peaks(*[1000] * 7, 4000, *[1000] * age)
    assert round(target(histogram, 8 + age)) == size


def test_vpa_counts_one_peak_of_a_container_in_a_day() -> None:
    once, (container,) = peaks(1000)
    for hour in range(1, 24):
        container.sample(900 * MI, hour * 3600.0)
        container.sample(1000 * MI, hour * 3600.0)
    assert sum(once.weights) == pytest.approx(2, rel=0.01)
    container.sample(1500 * MI, 23.5 * 3600)
    assert sum(once.weights) == pytest.approx(2, rel=0.01)


def test_vpas_bounds_are_wide_while_little_is_known() -> None:
    histogram, _ = peaks(*[1000] * 8)
    young, old = vpa.recommended(histogram, 0.5), vpa.recommended(histogram, 30)
    assert young.upper == pytest.approx(3 * young.target)
    assert young.lower < old.lower <= old.target <= old.upper < young.upper


def test_krr_gives_the_figure_that_it_printed() -> None:
    assert krr.recommended([size * MI for size in range(1000, 1151, 10)]) == 1_387_266_048
    assert krr.recommended([20 * MI]) == 96 * MI


def test_autopilots_rules_differ_in_what_they_bear() -> None:
    hours = autopilot.Hours()
    for hour in range(100):
        hours.begin()
        for _ in range(240):
            hours.add(1000)
        if hour == 50:
            hours.add(4000)
    assert hours.largest() == pytest.approx(1.1 * 4000, rel=0.05)
    assert hours.percentile(0.98) == pytest.approx(1.1 * 1000, rel=0.05)

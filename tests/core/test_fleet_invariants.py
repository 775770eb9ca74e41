"""Whatever is done to the fleet model: no task gets lost, none runs twice at once, and no reading is impossible."""

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_tuner.fleet import Deployment, Kill

MEBIBYTE = 2**20
NAMES = ("worker-0", "worker-1", "worker-2")
AUTOSCALE = "AIRFLOW__CELERY__WORKER_AUTOSCALE"

Call = Callable[["Played"], None]
names = st.sampled_from(NAMES)
limits = st.one_of(st.none(), st.integers(min_value=150, max_value=2000).map(lambda value: value * MEBIBYTE))
cores = st.one_of(st.none(), st.floats(min_value=0.1, max_value=4))


class Played:
    """A deployment, and what the calls so far have to leave true."""

    def __init__(self, seed: int, line: str, group_kills: bool) -> None:
        self.fleet = Deployment(seed, line=line, group_kills=group_kills, parallelism=12, pools={"narrow": 3})
        self.fleet.start("scheduler", "scheduler", {}, None)
        self.fleet.start("dag-processor", "dag-processor", {}, 400 * MEBIBYTE)
        self.runs: list[str] = []
        self.kills: list[Kill] = []
        self.limits: dict[str, int | None] = {}
        self.largest: dict[str, int | None] = {}

    def limit(self, name: str, limit: int | None, *, born: bool) -> None:
        """A limit is in force."""
        old = self.largest.get(name)
        self.limits[name] = limit
        largest = limit if born else None if old is None or limit is None else max(old, limit)
        self.largest[name] = largest

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.kills += self.fleet.advance(seconds)

    def check(self) -> None:
        """Nothing impossible is to be seen."""
        running = [(task, name) for name in NAMES for task in self.fleet.tasks(name)]
        assert len({id(task) for task, _ in running}) == len(running) == self.fleet.running
        for task, name in running:
            assert (task.state, task.worker) == ("running", name)
        for run in self.runs:
            assert all(task.tries <= task.job.retries + 1 for task in self.fleet.find(run).tasks)
        assert self.fleet.handed_out <= 12
        for name, limit in self.limits.items():
            seen = self.fleet.reading(name)
            assert 0 <= seen.rss <= seen.working_set <= seen.usage
            assert limit is None or seen.usage <= limit
            largest = self.largest[name]
            assert largest is None or seen.peak <= largest
            assert seen.cfs_throttled_periods <= seen.cfs_periods


def start(name: str, slots: int, limit: int | None, cores: float | None) -> Call:
    def call(played: Played) -> None:
        played.fleet.start(name, "worker", {AUTOSCALE: f"{slots},{slots}"}, limit, cores)
        played.limit(name, limit, born=True)

    return call


def resize(name: str, limit: int | None, cores: float | None) -> Call:
    def call(played: Played) -> None:
        if name in played.limits:
            played.fleet.resize(name, limit, cores)
            played.limit(name, limit, born=False)

    return call


def stop(name: str) -> Call:
    return lambda played: played.fleet.stop(name) if name in played.limits else None


def end(name: str) -> Call:
    def call(played: Played) -> None:
        played.fleet.end(name)
        played.limits.pop(name, None)

    return call


def set_slots(name: str, slots: int) -> Call:
    def call(played: Played) -> None:
        played.fleet.set_slots(name, slots)

    return call


def trigger(count: int, seconds: float, mebibytes: float, pool: str, cpu: float) -> Call:
    def call(played: Played) -> None:
        played.runs.append(
            played.fleet.trigger(
                "dag", count, seconds, mebibytes, pool=pool, cpu=cpu, memory_spread=0.5, fails=0.1, reads=10
            )
        )

    return call


def advance(seconds: float) -> Call:
    return lambda played: played.advance(seconds)


def redeliver(played: Played) -> None:
    played.fleet.redeliver()


def leak(mebibytes: float) -> Call:
    return lambda played: played.fleet.leak("worker", mebibytes)


calls = st.lists(
    st.one_of(
        st.builds(start, names, st.integers(1, 8), limits, cores),
        st.builds(resize, names, limits, cores),
        st.builds(stop, names),
        st.builds(end, names),
        st.builds(set_slots, names, st.integers(1, 10)),
        st.builds(
            trigger,
            st.integers(0, 12),
            st.floats(0, 90),
            st.floats(0, 600),
            st.sampled_from(["default_pool", "narrow"]),
            st.floats(0, 1),
        ),
        st.builds(advance, st.floats(0, 400)),
        st.just(redeliver),
        st.builds(leak, st.floats(0, 400)),
    ),
    max_size=25,
)


def play(seed: int, line: str, group_kills: bool, sequence: list[Call]) -> Played:
    """Make the calls, and look after each."""
    played = Played(seed, line, group_kills)
    for call in sequence:
        call(played)
        played.check()
    return played


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["2", "3"]), st.booleans(), calls)
def test_every_task_ends_and_nothing_impossible_is_seen(
    seed: int, line: str, group_kills: bool, sequence: list[Call]
) -> None:
    played = play(seed, line, group_kills, sequence)
    played.fleet.leak("worker", 0)
    for name in NAMES:
        start(name, 4, None, None)(played)
    for _ in range(30):
        played.advance(120)
        played.check()
    for run in played.runs:
        assert set(played.fleet.states(run)) <= {"success", "failed"}
    assert (played.fleet.waiting, played.fleet.stranded, played.fleet.running, played.fleet.handed_out) == (0, 0, 0, 0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["2", "3"]), st.booleans(), calls)
def test_the_same_calls_give_the_same_everything(seed: int, line: str, group_kills: bool, sequence: list[Call]) -> None:
    one, other = (play(seed, line, group_kills, sequence) for _ in range(2))
    assert one.kills == other.kills
    assert repr(one.fleet.samples()) == repr(other.fleet.samples())
    assert [one.fleet.reading(name) for name in one.limits] == [other.fleet.reading(name) for name in other.limits]


def test_time_is_the_same_in_small_steps_and_in_large_ones() -> None:
    found = []
    for step, times in ((0.1, 6000), (0.25, 2400), (60, 10), (600, 1)):
        played = Played(7, "3", group_kills=False)
        start("worker-0", 8, 900 * MEBIBYTE, 1.0)(played)
        trigger(40, 20, 100, "default_pool", 0.5)(played)
        for _ in range(times):
            played.advance(step)
        found.append((played.kills, repr(played.fleet.samples()), played.fleet.states(played.runs[0])))
    assert all(item == found[0] for item in found)

"""What a Prometheus would answer about an Airflow of the fleet model: it is scraped, and asked what the product asks.

Of the rates only those that the tests with it look at; a real Prometheus is asked in `tests/edges`.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from airflow_tuner import questions, telemetry
from airflow_tuner.fleet import Deployment
from airflow_tuner.signals import Series

EVERY = 15
KEPT = 15 * 60
WINDOW = 300
GAUGE = re.compile(r'__name__=~"([^"]+)"')

Key = tuple[tuple[str, str], ...]


class Scrapes:
    """The last quarter of an hour of an Airflow's series."""

    def __init__(self, fleet: Deployment) -> None:
        self.fleet = fleet
        self._pages: deque[tuple[float, dict[Key, float]]] = deque()

    def advance(self, seconds: float, *, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Let time pass; `meanwhile` is called each second."""
        for _ in range(int(seconds)):
            self.fleet.advance(1)
            meanwhile()
            if self.fleet.now % EVERY == 0:
                page = {
                    tuple(sorted({**labels, "__name__": name}.items())): value
                    for name, labels, value in self.fleet.samples()
                }
                self._pages.append((self.fleet.now, page))
        while self._pages and self._pages[0][0] < self.fleet.now - KEPT:
            self._pages.popleft()

    def read(self) -> telemetry.Airflow:
        """What the product makes of it."""
        found = GAUGE.search(questions.GAUGES.promql)
        assert found is not None
        answers = {
            questions.GAUGES.name: tuple(self._instant(found[1])),
            questions.QUEUES.name: tuple(self._queues()),
            questions.AIRFLOW_RATES.name: tuple(
                Series({"signal": name}, value) for name, value in self._rates().items()
            ),
        }
        return telemetry.read(answers, self.fleet.line)

    def _instant(self, pattern: str) -> Iterator[Series]:
        for key, value in self._pages[-1][1].items():
            labels = dict(key)
            if re.fullmatch(pattern, labels["__name__"]):
                yield Series(labels, value)

    def _queues(self) -> Iterator[Series]:
        names = set(self._sums("airflow_ti_queued", self._pages[-1][1]))
        for name in ("airflow_ti_queued", "airflow_ti_running"):
            for queue, value in self._sums(name, self._pages[-1][1]).items():
                yield Series({"__name__": name, "queue": queue}, value)
        for queue in names:
            least = min(self._sums("airflow_ti_queued", page).get(queue, 0) for page in self._since(telemetry.LEAST))
            yield Series({"signal": "queued_least", "queue": queue}, least)
        yield from self._held()

    def _held(self) -> Iterator[Series]:
        """What is scheduled and stays so, by DAG; all of it, not only the three of which there is most."""
        pages = self._since(WINDOW)
        names = {dict(key)["dag_id"] for key in pages[-1] if dict(key).get("dag_id")}
        for dag in names if self.fleet.now >= WINDOW else ():
            scheduled = [self._of_dag("airflow_ti_scheduled", dag, page) for page in pages]
            active = [self._of_dag("airflow_ti_(queued|running)", dag, page) for page in pages]
            ended = [self._of_dag("airflow_task_duration_count", dag, page) for page in pages]
            if min(scheduled) > 0:
                told = {"held": min(scheduled), "held_least": min(active), "held_most": max(active)}
                for name, value in {**told, "held_ended": ended[-1] - ended[0]}.items():
                    yield Series({"signal": name, "dag_id": dag}, value)
        for pool in {dict(key)["pool"] for key in pages[-1] if dict(key).get("pool")}:
            key = (("__name__", "airflow_pool_open_slots"), ("pool", pool))
            yield Series({"signal": "open_least", "pool": pool}, min(page[key] for page in pages if key in page))

    def _of_dag(self, pattern: str, dag: str, page: Mapping[Key, float]) -> float:
        return sum(
            value
            for key, value in page.items()
            if dict(key).get("dag_id") == dag and re.fullmatch(pattern, dict(key)["__name__"])
        )

    def _sums(self, name: str, page: Mapping[Key, float]) -> dict[str, float]:
        found: dict[str, float] = {}
        for key, value in page.items():
            labels = dict(key)
            if labels["__name__"] == name and labels.get("queue"):
                found[labels["queue"]] = found.get(labels["queue"], 0) + value
        return found

    def _rates(self) -> dict[str, float]:
        waiting = [self._sum("airflow_pool_queued_slots_.+", page) for page in self._since(telemetry.LEAST)]
        handed = [
            self._sum("airflow_executor_running_tasks", page, unlabelled=True) for page in self._since(telemetry.LEAST)
        ]
        ended = self._increase("airflow_task_duration_count", WINDOW, unlabelled=True)
        found = {
            "beats": self._increase("airflow_scheduler_heartbeat", 180),
            "known": 1.0,
            "started": self._increase("airflow_ti_start", WINDOW) / WINDOW,
            "ended": ended / WINDOW,
            "ended_seconds": self._increase("airflow_task_duration_sum", WINDOW, unlabelled=True) / WINDOW,
            "handed_out_least": min(handed),
            "waiting_least": min(waiting),
        }
        for name, series, most in (
            ("executor_open_least", "airflow_executor_open_slots", min),
            ("starving", "airflow_scheduler_tasks_starving", max),
        ):
            found[name] = most(self._sum(series, page, unlabelled=True) for page in self._since(WINDOW))
        for name, series in (("loop", "scheduler_loop"), ("critical", "critical_section_query")):
            counted = self._increase(f"airflow_scheduler_{series}_duration_count", WINDOW) / WINDOW
            found |= {name if name == "critical" else "loops": counted}
            found[f"{name}_seconds"] = self._increase(f"airflow_scheduler_{series}_duration_sum", WINDOW) / WINDOW
        found["looks"] = telemetry.LEAST / telemetry.QUIET_STEP
        starts = [self._sum("airflow_ti_start", page) for _, page in self._pages]
        for index in range(len(starts) - 1, 0, -1):
            # The sample before a start is in the two minutes before a look for that long.
            if starts[index] > starts[index - 1]:
                seen = self._pages[index - 1][0] + telemetry.LEAST
                found["quiet"] = max(0.0, self.fleet.now - seen)
                break
        return found

    def _since(self, seconds: float) -> list[dict[Key, float]]:
        return [page for at, page in self._pages if at >= self.fleet.now - seconds]

    def _increase(self, name: str, seconds: float, *, unlabelled: bool = False) -> float:
        pages = self._since(seconds)
        return self._sum(name, pages[-1], unlabelled=unlabelled) - self._sum(name, pages[0], unlabelled=unlabelled)

    def _sum(self, pattern: str, page: Mapping[Key, float], *, unlabelled: bool = False) -> float:
        return sum(
            value
            for key, value in page.items()
            if re.fullmatch(pattern, dict(key)["__name__"]) and not (unlabelled and len(key) > 1)
        )

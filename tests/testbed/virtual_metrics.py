"""What a virtual node shows to Prometheus: cAdvisor's series of its containers, and Airflow's own."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

Sample = tuple[str, Mapping[str, str], float]

TYPES = {
    "container_cpu_cfs_periods_total": "counter",
    "container_cpu_cfs_throttled_periods_total": "counter",
    "container_cpu_usage_seconds_total": "counter",
    "container_memory_cache": "gauge",
    "container_memory_max_usage_bytes": "gauge",
    "container_memory_rss": "gauge",
    "container_memory_usage_bytes": "gauge",
    "container_memory_working_set_bytes": "gauge",
    "container_oom_events_total": "counter",
    "container_spec_memory_limit_bytes": "gauge",
    "container_start_time_seconds": "gauge",
    "machine_cpu_cores": "gauge",
    "machine_memory_bytes": "gauge",
}


@dataclass(frozen=True, slots=True)
class ContainerSample:
    """One living container as cAdvisor saw it last. Memory is in bytes; `limit` is 0 where there is none."""

    namespace: str
    pod: str
    uid: str
    container: str
    id: str
    image: str
    rss: float
    cache: float
    working_set: float
    usage: float
    peak: float
    cpu_seconds: float
    process_kills: float
    limit: float
    started: float
    """Seconds since the epoch."""
    throttled_periods: float | None = None
    """None without a limit of CPU."""
    periods: float | None = None

    @property
    def labels(self) -> dict[str, str]:
        """As cAdvisor names a container."""
        return {
            "container": self.container,
            "id": f"/kubepods/burstable/pod{self.uid}/{self.id}",
            "image": self.image,
            "name": self.id,
            "namespace": self.namespace,
            "pod": self.pod,
        }

    def samples(self) -> Iterator[Sample]:
        """Its series."""
        labels = self.labels
        values = {
            "container_cpu_cfs_periods_total": self.periods,
            "container_cpu_cfs_throttled_periods_total": self.throttled_periods,
            "container_cpu_usage_seconds_total": self.cpu_seconds,
            "container_memory_cache": self.cache,
            "container_memory_max_usage_bytes": self.peak,
            "container_memory_rss": self.rss,
            "container_memory_usage_bytes": self.usage,
            "container_memory_working_set_bytes": self.working_set,
            "container_oom_events_total": self.process_kills,
            "container_spec_memory_limit_bytes": self.limit,
            "container_start_time_seconds": self.started,
        }
        for name, value in values.items():
            if value is not None:
                more = {"cpu": "total"} if name == "container_cpu_usage_seconds_total" else {}
                yield name, {**labels, **more}, value


def machine(containers: Iterable[ContainerSample], cores: float, memory: int, cpu_seconds: float) -> Iterator[Sample]:
    """The series of the node as a whole; `cpu_seconds` is what all containers ever used, the dead ones too."""
    every = list(containers)
    root = dict.fromkeys(("container", "image", "name", "namespace", "pod"), "") | {"id": "/"}
    yield "machine_cpu_cores", {}, cores
    yield "machine_memory_bytes", {}, memory
    yield "container_cpu_usage_seconds_total", {**root, "cpu": "total"}, cpu_seconds
    yield "container_memory_working_set_bytes", root, sum(each.working_set for each in every)
    yield "container_memory_rss", root, sum(each.rss for each in every)
    yield "container_memory_cache", root, sum(each.cache for each in every)
    yield "container_memory_usage_bytes", root, sum(each.usage for each in every)


def exposition(samples: Iterable[Sample], types: Mapping[str, str], at: float | None = None) -> str:
    """Samples in Prometheus' text format, with `at` in seconds since the epoch as the time each was taken."""
    by_name: dict[str, list[str]] = {}
    moment = "" if at is None else f" {round(at * 1000)}"
    for name, labels, value in samples:
        told = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        by_name.setdefault(name, []).append(f"{name}{{{told}}} {float(value)!r}{moment}\n")
    return "".join(
        f"# TYPE {name} {types.get(name, 'untyped')}\n" + "".join(lines) for name, lines in sorted(by_name.items())
    )


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

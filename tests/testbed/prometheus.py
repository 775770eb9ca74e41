"""Prometheus and the StatsD exporter as ordinary processes on loopback ports."""

import json
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from testbed.commands import run
from testbed.loopback import fetch
from testbed.processes import Area, Startable, free_port
from testbed.programs import program

START_SECONDS = 30.0


def _answers(url: str) -> bool:
    return bool(fetch(url, timeout=5))


class Prometheus(Startable):
    """A Prometheus on a free port of this machine with the given scrape configs; as a context manager it runs.

    With `otlp` it also receives OpenTelemetry's metrics.
    """

    def __init__(
        self,
        area: Area,
        scrape_configs: Sequence[Mapping[str, Any]],
        interval: str = "5s",
        address: str = "127.0.0.1",
        *,
        otlp: bool = False,
    ) -> None:
        port = free_port()
        self.url = f"http://{address}:{port}"
        self.config = area.path / f"prometheus-{port}.json"
        self.data = area.path / f"prometheus-{port}"
        self._settings = {"global": {"scrape_interval": interval}, "scrape_configs": list(scrape_configs)}
        self.program = area.program(
            f"prometheus-{port}",
            [
                program("prometheus"),
                f"--config.file={self.config}",
                f"--storage.tsdb.path={self.data}",
                f"--web.listen-address={address}:{port}",
                "--web.enable-lifecycle",
                *(["--web.enable-otlp-receiver"] if otlp else []),
            ],
        )

    def remember(self, samples: str) -> None:
        """Gives it a past, in OpenMetrics with timestamps, before it starts. Needs promtool."""
        written = self.config.with_suffix(".openmetrics")
        written.write_text(samples)
        run([program("promtool"), "tsdb", "create-blocks-from", "openmetrics", "--quiet", written, self.data])

    def start(self) -> Self:
        """Starts it; returns when it answers queries."""
        self.config.write_text(json.dumps(self._settings, indent=2))  # JSON is YAML
        self.program.start()
        try:
            self.program.wait_until(lambda: _answers(f"{self.url}/-/ready"), "Prometheus to be ready", START_SECONDS)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stops it; its data stays in the area."""
        self.program.stop()

    def query(self, promql: str) -> list[dict[str, Any]]:
        """Returns the result of an instant query: one entry with `metric` and `value` per series."""
        url = f"{self.url}/api/v1/query?" + urllib.parse.urlencode({"query": promql})
        result: list[dict[str, Any]] = json.loads(fetch(url))["data"]["result"]
        return result

    def over(self, promql: str, begin: float, end: float, step: float) -> list[dict[str, Any]]:
        """Returns the result of a query at many times: one entry with `metric` and `values` per series."""
        times = {"start": begin, "end": end, "step": step}
        url = f"{self.url}/api/v1/query_range?" + urllib.parse.urlencode({"query": promql, **times})
        result: list[dict[str, Any]] = json.loads(fetch(url))["data"]["result"]
        return result

    def metrics(self) -> str:
        """Returns its metrics about itself, in Prometheus' text format."""
        return fetch(f"{self.url}/metrics").decode()


class StatsdExporter(Startable):
    """A statsd_exporter: StatsD packets in by UDP on `address:udp_port`, metrics out by HTTP at `url`."""

    def __init__(self, area: Area, mapping: Path, address: str = "127.0.0.1") -> None:
        self.udp_port = free_port()
        self.http_port = free_port()
        self.url = f"http://{address}:{self.http_port}"
        self.program = area.program(
            f"statsd_exporter-{self.udp_port}",
            [
                program("statsd_exporter"),
                f"--statsd.mapping-config={mapping}",
                f"--statsd.listen-udp={address}:{self.udp_port}",
                "--statsd.listen-tcp=",
                f"--web.listen-address={address}:{self.http_port}",
            ],
        )

    def start(self) -> Self:
        """Starts it; returns when it serves metrics."""
        self.program.start()
        try:
            self.program.wait_until(lambda: _answers(f"{self.url}/metrics"), "statsd_exporter to serve", START_SECONDS)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stops it."""
        self.program.stop()

    def metrics(self) -> str:
        """Returns what it serves now, in Prometheus' text format."""
        return fetch(f"{self.url}/metrics").decode()

"""The signals of the catalogue, asked of one Prometheus through prometheus-api-client.

That client retries, blocks, forwards NaN as text and raises four families of errors; none of it leaves this module.
"""

import asyncio
import json
import math
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import requests
from prometheus_api_client.exceptions import PrometheusApiClientException
from prometheus_api_client.prometheus_connect import PrometheusConnect
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as ReadTimeoutError
from urllib3.util.retry import Retry

from airflow_tuner import api, signals
from airflow_tuner.errors import Misconfigured, Unavailable
from airflow_tuner.sentence import short
from airflow_tuner.session import Session, TooLarge
from airflow_tuner.settings import Source
from airflow_tuner.signals import Scope, Series, Signal

CONTAINERS = "scheduler|dag-processor|triggerer|api-server|webserver|worker|airflow-.+"
"""Names of main containers, so that a question does not fetch the sidecars' series."""

CONNECT_SECONDS = 3.0
"""Longest wait for a connection, within the source's own time limit."""

QUESTIONS = 8
"""Most questions under way at one source. They have threads of their own, so that a slow source delays nobody else, and
so many answers of the largest size, of about 8000 series each, fit into the memory that the chart gives us."""

FRESH = 90.0
"""Seconds for which the last answer will do where nobody may wait for a newer one."""

KEPT = 2000
"""Most answers that are kept for that."""

HOUR = 3600

LARGEST = 2.0**62
"""No size in bytes, and no count, is larger: what is would be refused in a status."""

LAST_SECOND = datetime(9999, 12, 31, tzinfo=UTC).timestamp()

_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,127}")

# What becomes of an answer that has no form, or another one.
_FAILURES = (
    PrometheusApiClientException,
    requests.RequestException,
    HTTPError,
    TimeoutError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
    ArithmeticError,
)


class _Incomplete(ValueError):  # noqa: N818 - as above
    """An answer that says itself that something is missing in it."""


class _Session(Session):
    """An answer that lacks something is none, either."""

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # noqa: ANN401 - the base's
        response = super().send(request, **options)
        if response.ok:
            _require_whole(response.content)
        return response


def _require_whole(body: bytes) -> None:
    """`_Incomplete` where a store behind the source did not answer; remarks on the question itself do not count."""
    if b'"warnings"' in body:
        told = json.loads(body).get("warnings") or []
        if not all(str(one).startswith(("PromQL info", "PromQL warning")) for one in told):
            raise _Incomplete


class TooMuch(Unavailable):
    """An answer that was too large, or came too late: a smaller question may have one."""


@dataclass(frozen=True, slots=True)
class Track:
    """Values of one series over a time."""

    labels: dict[str, str]
    values: dict[int, float]
    """By time, in seconds since 1970; of `Prometheus.ask_hours` by hour."""


@dataclass
class Prometheus:
    """One source of metrics."""

    name: str
    source: Source
    calls: int = 0
    """Questions asked so far."""
    _last: dict[str, tuple[float, tuple[Series, ...] | Unavailable]] = field(default_factory=dict, repr=False)
    """What came of the last questions: when, and what."""
    _connection: PrometheusConnect = field(init=False, repr=False)
    _threads: ThreadPoolExecutor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        seconds, token_file = self.source.timeout_seconds, self.source.bearer_token_file
        self._connection = PrometheusConnect(
            url=self.source.url,
            session=_Session(seconds),
            retry=Retry(total=0, raise_on_status=False),
            timeout=(min(CONNECT_SECONDS, seconds), seconds),  # type: ignore[arg-type] # requests takes (connect, read)
            # requests takes a function, too: it is called for each question.
            auth=None if token_file is None else partial(self._authorized, token_file),  # type: ignore[arg-type]
        )
        self._threads = ThreadPoolExecutor(QUESTIONS, thread_name_prefix=f"metrics-{self.name}")

    async def ask(self, signal: Signal, scope: Scope, patience: float | None = None) -> tuple[Series, ...]:
        """The present values of a signal. A value that is no finite number, or too large for one, is left out.

        While its answer lasts it is not asked again, nor while it rests after a failure. After `patience` seconds what
        came of the same question the last time will do, if that is younger than `FRESH`.
        `Unavailable` within the source's time limit; `Misconfigured` for a token that cannot be sent.
        """
        promql = signals.query(signal, scope)
        loop = asyncio.get_running_loop()
        at, last = self._last.get(promql, (-math.inf, ()))
        if loop.time() - at < (signal.rests if isinstance(last, Unavailable) else signal.lasts):
            return _or_raise(last)
        self.calls += 1
        waits = self.source.timeout_seconds
        if patience is not None and loop.time() - at < FRESH + signal.lasts:
            waits = min(waits, patience)
        try:
            # The client's own limit is for each read: a source that sends a byte now and then would never end.
            async with asyncio.timeout(waits):
                answer = await loop.run_in_executor(self._threads, self._connection.custom_query, promql)
            found: tuple[Series, ...] | Unavailable
            found = tuple(series for item in answer if (series := _series(item)) is not None)
        except _FAILURES as error:
            if isinstance(error, TimeoutError) and waits < self.source.timeout_seconds:
                return _or_raise(last)
            found = Unavailable(
                f"The metrics source {self.name} does not answer as a Prometheus does ({_kind(error)})."
            )
            found.__cause__ = error
        self._last.pop(promql, None)
        self._last[promql] = (loop.time(), found)
        if len(self._last) > KEPT:
            del self._last[next(iter(self._last))]
        return _or_raise(found)

    async def ask_hours(self, signal: Signal, scope: Scope, first: int, last: int) -> tuple[Track, ...]:
        """The values of a signal at the end of each hour from `first` to `last`, counted from 1970."""
        found = await self.ask_over(signal, scope, range((first + 1) * HOUR, (last + 1) * HOUR + 1, HOUR))
        return tuple(
            replace(item, values={at // HOUR - 1: value for at, value in item.values.items()}) for item in found
        )

    async def ask_over(self, signal: Signal, scope: Scope, times: range) -> tuple[Track, ...]:
        """The values of a signal at these times, in seconds since 1970; `TooMuch` where fewer may be answered."""
        promql = signals.query(signal, scope)
        start, end = (datetime.fromtimestamp(at, UTC) for at in (times[0], times[-1]))
        self.calls += 1
        asked = partial(self._connection.custom_query_range, promql, start, end, f"{times.step}")
        try:
            async with asyncio.timeout(self.source.timeout_seconds):
                answer = await asyncio.get_running_loop().run_in_executor(self._threads, asked)
            return tuple(_track(item) for item in answer)
        except _FAILURES as error:
            told = f"The metrics source {self.name} does not answer as a Prometheus does ({_kind(error)})."
            raise (TooMuch if _divisible(error) else Unavailable)(told) from error

    def _authorized(self, file: Path, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """`request` with the token as the file has it now: it is renewed in place."""
        try:
            token = file.read_text(encoding="ascii").strip()
        except OSError as error:
            msg = f"The token of the metrics source {self.name} cannot be read: {error.strerror}."
            raise Misconfigured(msg) from error
        except UnicodeDecodeError:
            token = ""
        if not token or not token.isprintable():
            msg = f"The token of the metrics source {self.name} must be one line of ASCII: mend the file {file}."
            raise Misconfigured(msg)
        request.headers["Authorization"] = f"Bearer {token}"
        return request


def _or_raise(found: tuple[Series, ...] | Unavailable) -> tuple[Series, ...]:
    if isinstance(found, Unavailable):
        # A new one, as a traceback grows with each time that an error is raised.
        raise Unavailable(str(found)) from found.__cause__
    return found


def scope(metrics: api.Metrics, namespace: str, rounds: int = 0) -> Scope:
    """Whose series are asked for, and over how many seconds parsing is.

    `Misconfigured` for a label that no series can have.
    """
    # The namespace last: whoever writes a policy does not choose it.
    own = _matchers({**metrics.match_labels, "namespace": namespace})
    return Scope(
        container=f'{own},container=~"{CONTAINERS}"',
        cluster=_matchers(metrics.match_labels),
        airflow=_matchers({**metrics.match_labels, **metrics.airflow_match_labels}),
        window=metrics.window_seconds,
        rounds=max(metrics.window_seconds, rounds),
        tasks=f'{own},container="base"',
    )


def moment(seconds: float) -> datetime:
    """A time of Prometheus; one that no calendar holds becomes the nearest that one does."""
    return datetime.fromtimestamp(min(max(seconds, 0), LAST_SECOND), UTC)


def _series(item: Mapping[str, Any]) -> Series | None:
    # An answer of another form ends here, and not where its labels are used.
    labels = {key: "".join(value) for key, value in item["metric"].items()}
    value = float(item["value"][1])
    return Series(labels, value) if abs(value) <= LARGEST else None


def _track(item: Mapping[str, Any]) -> Track:
    labels = {key: "".join(value) for key, value in item["metric"].items()}
    told = ((int(float(at)), float(value)) for at, value in item["values"])
    return Track(labels, {at: value for at, value in told if abs(value) <= LARGEST})


def _matchers(labels: Mapping[str, str]) -> str:
    return ",".join(_matcher(key, value) for key, value in labels.items())


def _matcher(label: str, value: str) -> str:
    if not _LABEL.fullmatch(label):
        msg = (
            f"spec.metrics: {short(label)!r} cannot be the name of a Prometheus label: use letters, digits and _, "
            "128 at most."
        )
        raise Misconfigured(msg)
    told = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{label}="{told}"'


def _kind(error: Exception) -> str:
    """What went wrong, without the response's body: it may hold anything."""
    told = {
        requests.exceptions.SSLError: "its certificate is not trusted",
        requests.ConnectionError: "no connection",
        requests.Timeout: "no answer in time",
        TimeoutError: "no answer in time",
        ReadTimeoutError: "no answer in time",
        HTTPError: "no connection",
        TooLarge: "the answer is too large",
        _Incomplete: "the answer is incomplete by its own warnings",
        PrometheusApiClientException: _status(error),
    }
    return next((text for kind, text in told.items() if isinstance(error, kind)), "the answer has another form")


def _status(error: Exception) -> str:
    """The client puts the status before the body."""
    found = re.match(r"HTTP Status Code (\d{3})\b", str(error))
    return f"status {found[1]}" if found else "an error"


def _divisible(error: Exception) -> bool:
    """Prometheus answers 422 where a question reads too many samples, and 503 where it takes too long."""
    late = isinstance(error, (TooLarge, TimeoutError, ReadTimeoutError, requests.ReadTimeout))
    return late or _status(error) in {"status 422", "status 503", "status 504"}

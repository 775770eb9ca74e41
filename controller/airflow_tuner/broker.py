"""What Celery's workers say of themselves, and the number of their slots, through the broker that Airflow uses.

The URL is a secret and the libraries' errors may quote it: none of their words leaves this module.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from ssl import CERT_REQUIRED, SSLCertVerificationError
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

from amqp import exceptions as amqp
from amqp.exceptions import AMQPError
from celery import Celery
from celery.app.control import Control
from kombu.connection import Connection
from kombu.exceptions import ChannelError, KombuError
from kombu.pidbox import Mailbox
from redis import exceptions as redis

from airflow_tuner.errors import Misconfigured, Refused, TunerError, Unavailable
from airflow_tuner.model import Slots
from airflow_tuner.sentence import fitted, short

REDIS = frozenset({"redis", "rediss", "sentinel"})
AMQP = frozenset({"amqp", "amqps", "pyamqp"})

CONNECT_SECONDS = 3.0
"""Longest wait for a connection, within the broker's own time limit."""

CALLS = 4
"""Most calls under way at one broker. They have threads of their own, so that a hung broker delays nobody else."""

SETTLED_SECONDS = 5.5
"""Celery lets processes come and go up to 5 s late. Counts that differ longer do so for good, and hold nothing up."""

LOOK_SECONDS = 0.1
"""Between two looks at a worker that changes."""

IN_TIME = 0.9
"""Share of the time limit in which a call may still ask: nothing happens once its caller has given up."""

COMMAND = ["airflow", "tasks", "run"]
"""How the message of a task begins on Airflow 2; its DAG and its name follow."""

LARGEST = 2**16
"""Most characters of a message that is looked into. One of Airflow 3.3.2 has a thousand, and more with long names."""

NAMED = 20
"""Most tasks that are kept of one worker."""

LONGEST_NAME = 100
"""Most characters that are kept of a task's name, with its DAG's: Airflow allows 250 for each."""

# kombu would trust any certificate. A URL with ?ssl_cert_reqs=none still does.
_TLS = {"ssl_cert_reqs": CERT_REQUIRED}

_T = TypeVar("_T")

# Redis keeps no queue that is empty.
_NO_QUEUE = (amqp.NotFound, ChannelError)

# What becomes of a broker that is away, that refuses, or that is none.
_FAILURES = (
    *(OSError, AMQPError, KombuError, redis.RedisError),
    *(ValueError, LookupError, TypeError, AttributeError, RecursionError),
)


class _Once(Connection):
    """Tries once: kombu would repeat for ever what fails."""

    def ensure(self, obj: Any, fun: Any, *_: Any, **__: Any) -> Any:  # noqa: ANN401, ARG002 - the base's signature
        return fun


class _Mailbox(Mailbox):
    producer_pool = None
    """Publishes over the connection at hand; a pool would open others, and keep them."""

    @cached_property
    def oid(self) -> str:
        """Names the queue for the answers to one question: one that comes late must not count for another."""
        return uuid4().hex


class _Control(Control):  # type: ignore[misc] # Celery has no types
    Mailbox = _Mailbox


# It never sees the URL: every call brings its connection.
_CELERY = Celery("airflow-tuner", set_as_current=False, control=_Control, accept_content=["json"])


class Broker:
    """One Celery broker; `Misconfigured` for a URL that cannot be one. Every call ends within `seconds`, 4 or more.

    `options` are Airflow's `[celery_broker_transport_options]`, such as `master_name` or `global_keyprefix`.
    """

    def __init__(self, url: str, seconds: float = 10.0, options: Mapping[str, Any] | None = None) -> None:
        schemes, options = _schemes(url), options or {}
        if "sentinel" in schemes and "master_name" not in options:
            raise Misconfigured("A sentinel:// broker needs master_name among Airflow's broker transport options.")
        each = seconds * IN_TIME
        connect = min(CONNECT_SECONDS, each)
        redis_limits = {"socket_timeout": each, "socket_connect_timeout": connect, "retry_on_timeout": False}
        self._connection = partial(
            _Once,
            url,
            ssl=_TLS if "rediss" in schemes else False,
            connect_timeout=connect,
            transport_options={**options, **redis_limits, "read_timeout": each, "write_timeout": each},
        )
        self._seconds = seconds
        self._others = url.count(";")
        self._threads = ThreadPoolExecutor(CALLS, thread_name_prefix="broker")

    async def workers(self, names: Sequence[str]) -> Mapping[str, Slots]:
        """What the workers `celery@<name>` say; one that takes longer than half of the time limit is absent."""
        nodes = {f"celery@{name}": name for name in names}
        return await self._call(lambda talk: talk.slots(nodes)) if nodes else {}

    async def queued(self, queues: Sequence[str]) -> Mapping[str, int]:
        """Messages that wait in these queues, and that no worker has taken yet."""
        return await self._call(lambda talk: talk.queued(queues)) if queues else {}

    async def set_slots(self, name: str, now: Slots, slots: int) -> None:
        """Give a worker, which is `now` so, this many slots while it runs.

        Fewer: as far as idle processes allow. With autoscale it takes no more than `slots` tasks at once from now on,
        and its other processes end when this is asked again; without it is `Refused` while all are busy. What runs is
        left alone; only a task that begins in the same millisecond or two may lose its process, as under Celery's own
        autoscaler. Processes come and go up to 5 s late. After `Unavailable` it may have happened all the same.
        """
        if slots < 1:
            raise Refused(f"The worker {short(name)} keeps at least one slot.")
        await self._call(lambda talk: talk.set_slots(f"celery@{name}", slots, autoscaled=now.autoscaled))

    def close(self) -> None:
        """Take no more calls; those under way come to their end."""
        self._threads.shutdown(wait=False)

    async def _call(self, work: "Callable[[_Talk], _T]") -> _T:
        deadline = time.monotonic() + self._seconds * IN_TIME
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.get_running_loop().run_in_executor(self._threads, self._connected, work, deadline)
        except TimeoutError as error:
            raise _failure(error) from None

    def _connected(self, work: "Callable[[_Talk], _T]", deadline: float) -> _T:
        """`work` over a connection of its own."""
        try:
            with self._connection() as connection:
                connection.ensure_connection(max_retries=self._others, reraise_as_library_errors=False)
                return work(_Talk(connection, deadline))
        except _FAILURES as error:
            failure = _failure(error)
        # Not within `except`: the error would stay as its context, and may hold the URL.
        raise failure


@dataclass(frozen=True, slots=True)
class _Pool:
    """A worker's processes."""

    processes: int
    target: int | None
    """How many there shall be; said with autoscale only."""
    begun: int
    """Tasks that have begun since the worker's start."""


@dataclass(frozen=True, slots=True)
class _Talk:
    """Questions over one connection until the deadline; in a thread."""

    connection: Connection
    deadline: float

    def slots(self, nodes: Mapping[str, str]) -> dict[str, Slots]:
        stats = self._ask("stats", nodes)
        # The short form of a message is cut before it says which task it is. The whole one is not kept: it holds the
        # task's token.
        active = self._ask("active", stats)
        queues = self._ask("active_queues", active)
        now = time.time()
        found = {nodes[node]: _slots(stats[node], active[node], queues[node], now) for node in queues}
        return {name: slots for name, slots in found.items() if slots is not None}

    def queued(self, queues: Sequence[str]) -> dict[str, int]:
        return {queue: self._length(queue) for queue in queues}

    def _length(self, queue: str) -> int:
        # A channel of its own: a broker closes the one over which it was asked for a queue that is not there.
        with self.connection.channel() as channel:  # type: ignore[no-untyped-call]
            try:
                return int(channel.queue_declare(queue, passive=True).message_count)
            except _NO_QUEUE:
                return 0

    def set_slots(self, node: str, slots: int, *, autoscaled: bool) -> None:
        # Looked at anew: a change that is relative to it must not be made twice.
        pool = self._pool(node)
        if autoscaled:
            if slots < pool.processes:
                self._calm(node, pool)
            self._tell("autoscale", node, max=slots, min=slots)
        elif slots > pool.processes:
            self._tell("pool_grow", node, n=slots - pool.processes)
            self._until(node, pool, lambda _, pool: pool.processes >= slots, "does not start its new processes in time")
        while not autoscaled and slots < pool.processes:
            pool = self._calm(node, pool)
            # One by one: asked for more than are idle, Celery ends all that are, and its prefetch stays.
            self._tell("pool_shrink", node, n=1)
            pool = self._until(node, pool, lambda old, pool: pool.processes < old.processes, "ends no process in time")

    def _calm(self, node: str, old: _Pool) -> _Pool:
        """Wait until neither a task begins nor a process ends: both make a process idle to Celery that is not.

        A task's process is, for about a millisecond, until it has said that it has begun.
        """
        settled = time.monotonic() + SETTLED_SECONDS

        def calm(old: _Pool, pool: _Pool) -> bool:
            ended = pool.target in {None, pool.processes} or time.monotonic() > settled
            return pool.begun == old.begun and ended

        return self._until(
            node,
            old,
            calm,
            "begins tasks or ends processes all the time",
        )

    def _until(self, node: str, old: _Pool, check: Callable[[_Pool, _Pool], bool], otherwise: str) -> _Pool:
        """Look until two looks in a row, the first of them `old`, are right."""
        while time.monotonic() + LOOK_SECONDS < self.deadline:
            time.sleep(LOOK_SECONDS)
            pool = self._pool(node)
            if check(old, pool):
                return pool
            old = pool
        raise Unavailable(f"The worker {_name(node)} {otherwise}.")

    def _pool(self, node: str) -> _Pool:
        stats = self._answer("stats", node)
        target = stats["autoscaler"]["current"] if stats.get("autoscaler") else None
        return _Pool(len(stats["pool"]["processes"]), target, sum(stats["total"].values()))

    def _tell(self, command: str, node: str, **arguments: int) -> None:
        answer = self._answer(command, node, **arguments)
        if "ok" in answer:
            return
        why = fitted(str(answer["error"]), 200)
        if "All processes busy" in why:
            raise Refused(
                f"All slots of the worker {_name(node)} are busy: it gets fewer when tasks end, or at its pod's next "
                "creation."
            )
        raise Refused(f"The worker {_name(node)} refuses {command}: {why}")

    def _answer(self, command: str, node: str, **arguments: int) -> Any:  # noqa: ANN401 - whatever it says
        answers = self._ask(command, [node], **arguments)
        if node not in answers:
            raise Unavailable(f"The worker {_name(node)} does not answer.")
        return answers[node]

    def _ask(self, command: str, nodes: Iterable[str], **arguments: object) -> dict[str, Any]:
        """The answers, by node, that come within half of the time left."""
        destination, left = list(nodes), self.deadline - time.monotonic()
        # An empty destination would mean all workers of the broker.
        if not destination or left <= 0:
            return {}
        answers = _CELERY.control.broadcast(
            command,
            arguments,
            destination,
            self.connection,
            reply=True,
            timeout=left / 2,
            limit=len(destination),
        )
        return {node: answer for one in answers for node, answer in one.items() if node in destination}


def _slots(stats: Any, active: Any, queues: Any, now: float) -> Slots | None:  # noqa: ANN401 - whatever it says
    """`None` for an error, another form, or a pool without processes."""
    try:
        began = [float(task["time_start"] or now) for task in active]
        return Slots(
            processes=len(stats["pool"]["processes"]),
            prefetch=int(stats["prefetch_count"]),
            busy=len(began),
            autoscaled=bool(stats.get("autoscaler")),
            queues=tuple(sorted(queue["name"] for queue in queues)),
            oldest=max(0.0, now - min(began, default=now)),
            tasks=_tasks(active),
            begun=sum(int(count) for count in stats["total"].values()) if "total" in stats else None,
        )
    except (LookupError, TypeError, ValueError, AttributeError):
        return None


def _tasks(active: Iterable[Any]) -> dict[str, int]:
    """Airflow's tasks among what a worker runs, those of which most run first."""
    return dict(Counter(name for one in active if (name := _task(one))).most_common(NAMED))


def _task(one: Any) -> str:  # noqa: ANN401 - whatever it says
    """`dag.task` of a message: on Airflow 3 a workload in JSON, on Airflow 2 a command. Empty for anything else."""
    try:
        told = one["args"][0]
        if isinstance(told, str):
            ti = json.loads(told)["ti"] if len(told) <= LARGEST else {}
            dag, task = ti["dag_id"], ti["task_id"]
        else:
            dag, task = told[3:5] if told[:3] == COMMAND else ("", "")
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return ""
    return short(f"{dag}.{task}", LONGEST_NAME) if dag and task else ""


def _name(node: str) -> str:
    return short(node.removeprefix("celery@"))


def _schemes(url: str) -> set[str]:
    """The kinds of broker that a URL names; `Misconfigured` without a word of it."""
    try:
        parts = [urlsplit(part) for part in url.split(";")]
        known = all(part.scheme in REDIS | AMQP and part.hostname and part.port != 0 for part in parts)
        # Redis numbers its databases.
        if known and all(part.scheme in AMQP or (part.path.strip("/") or "0").isdecimal() for part in parts):
            _Once(url, ssl=_TLS)  # type: ignore[no-untyped-call] # kombu's is without types
            return {part.scheme for part in parts}
    except (ValueError, LookupError, TypeError):
        pass
    raise Misconfigured(
        "The broker's URL must be like redis://:password@redis:6379/0 or amqp://user:password@rabbitmq:5672/, with "
        "special characters in the password as %XX: mend it."
    )


def _failure(error: Exception) -> TunerError:
    """What went wrong, without the error's own words."""
    refused = isinstance(error, redis.AuthenticationError) or "DB index" in str(error)
    if refused or getattr(error, "code", 0) in {403, 530}:
        return Misconfigured("The broker refuses the user, the password or the database: mend the broker's URL.")
    if isinstance(error, redis.NoPermissionError):
        return Misconfigured("The broker's user lacks rights: give it those of Airflow's workers.")
    if any(isinstance(one, SSLCertVerificationError) for one in (error, error.__cause__, error.__context__)):
        return Misconfigured(
            "The broker's certificate is not trusted: add ?ssl_ca_certs=FILE or ?ssl_cert_reqs=none to its URL."
        )
    told = {
        "no answer in time": TimeoutError | redis.TimeoutError,
        "no connection": OSError | redis.ConnectionError,
    }
    kind = next((text for text, kinds in told.items() if isinstance(error, kinds)), "it answers as no broker does")
    return Unavailable(f"The broker does not answer ({kind}).")

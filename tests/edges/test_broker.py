"""Celery's broker: a real Redis with a password, real workers whose tasks sleep, and servers that are no broker."""

import asyncio
import gc
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass

import pytest
from celery import Celery
from redis import Redis
from redis.exceptions import RedisError

from airflow_tuner.broker import CALLS, Broker
from airflow_tuner.errors import Misconfigured, Refused, TunerError, Unavailable
from airflow_tuner.model import Slots
from testbed.processes import Area, Program, free_port, wait_for

PASSWORD = "a-password/that%nobody may:read@all"  # noqa: S105 - of a Redis that lives for this test
QUOTED = "a-password%2Fthat%25nobody%20may%3Aread%40all"
SECONDS = 15.0
"""Longest wait."""

QUICK = 4.0
"""Time limit of a look at a worker, of which it may use half."""

# As Airflow has it, a task is acknowledged when it ends, and none is hoarded. Unlike there, Celery looks after its
# processes ten times as often, so that the tests need not wait for it.
TASKS = """
import os
from celery import Celery
from celery.concurrency.asynpool import AsynPool
from redis import Redis
AsynPool.timers = property(lambda pool: {pool.maintain_pool: 0.5})
app = Celery(broker=os.environ["BROKER"])
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, worker_hijack_root_logger=False)
@app.task(name="task")
def task(worker, number):
    with Redis.from_url(os.environ["BROKER"]) as redis:
        redis.rpush(f"{worker}-begun", number)
        redis.blpop(f"{worker}-end", 60)
        redis.rpush(f"{worker}-done", number)
@app.task(name="execute_workload")
def workload(message):
    with Redis.from_url(os.environ["BROKER"]) as redis:
        redis.blpop("workload-end", 60)
@app.task(name="execute_command")
def command(words):
    with Redis.from_url(os.environ["BROKER"]) as redis:
        redis.blpop("workload-end", 60)
"""

# The form of a real message, with the token at its begin; of which the short form that Celery keeps is cut.
WORKLOAD = (
    '{"token":"%s","dag_rel_path":"x.py","bundle_info":{"name":"dags-folder","version":null},"log_path":"dag_id=etl/'
    'run_id=a/task_id=load/attempt=1.log","ti":{"id":"eaa7bff3-c56f-44ff-aff9-42b16850469e","task_id":"load",'
    '"dag_id":"etl","run_id":"manual__2026-11-11T10:10:10+00:00","try_number":1,"map_index":-1,"hostname":null,'
    '"context_carrier":null,"queue":"default","pool_slots":1},"sentry_integration":"","type":"ExecuteTask"}'
)


@dataclass
class Worker:
    """A Celery worker that takes the queue of its name; its tasks run until they are told to end."""

    name: str
    url: str
    redis: Redis
    program: Program
    sent: int = 0
    ended: int = 0

    def look(self) -> Slots:
        """What it says of itself."""
        return asked(self.url, [self.name])[self.name]

    def set_slots(self, slots: int) -> None:
        """As the operator does it: after a look."""
        set_slots(self.url, self.name, self.look(), slots)

    def reach(self, processes: int) -> Slots:
        """Wait for that number of processes."""
        return self.wait(lambda seen: seen.processes == processes, f"{processes} processes")

    def wait(self, check: Callable[[Slots], bool], what: str) -> Slots:
        """Wait until what it says is right."""
        self.program.wait_until(lambda: check(self.look()), f"{what} of {self.name}", SECONDS)
        return self.look()

    def begin(self, tasks: int, busy: int) -> Slots:
        """Give it tasks, and wait until so many run."""
        with Celery(broker=self.url, set_as_current=False) as celery:
            for _ in range(tasks):
                self.sent += 1
                celery.send_task("task", (self.name, self.sent), queue=self.name)
        return self.wait(lambda seen: seen.busy == busy, f"{busy} tasks")

    def end(self, tasks: int) -> None:
        """Let so many of its tasks end."""
        self.ended += tasks
        for _ in range(tasks):
            self.redis.rpush(f"{self.name}-end", "")

    def end_all_once(self) -> None:
        """Let all end, and check that each has run exactly once."""
        self.end(self.sent - self.ended)
        want = sorted(str(number + 1) for number in range(self.sent))
        self.program.wait_until(lambda: self._ran("done") == want, "all tasks to end", SECONDS)
        assert self._ran("begun") == want, "none began twice"
        self.wait(lambda seen: seen.busy == 0, "no task")

    def _ran(self, key: str) -> list[str]:
        return sorted(str(one) for one in self.redis.lrange(f"{self.name}-{key}", 0, -1))


@dataclass(frozen=True)
class Running:
    """A Redis, and two workers that have two slots at first."""

    url: str
    redis: Redis
    auto: Worker
    plain: Worker


def asked(url: str, names: Sequence[str], seconds: float = QUICK) -> Mapping[str, Slots]:
    """What these workers say."""
    broker = Broker(url, seconds)
    try:
        return asyncio.run(broker.workers(names))
    finally:
        broker.close()


def queued(url: str, queues: Sequence[str]) -> Mapping[str, int]:
    """The messages that wait in queues."""
    broker = Broker(url, SECONDS)
    try:
        return asyncio.run(broker.queued(queues))
    finally:
        broker.close()


def set_slots(url: str, name: str, now: Slots, slots: int, seconds: float = SECONDS) -> None:
    """Set one worker's slots."""
    broker = Broker(url, seconds)
    try:
        asyncio.run(broker.set_slots(name, now, slots))
    finally:
        broker.close()


@pytest.fixture(scope="module")
def running(area: Area) -> Iterator[Running]:
    """Starts Redis, a worker with autoscale and one without."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed: run `sudo make system`")
    port = free_port()
    url = f"redis://:{QUOTED}@127.0.0.1:{port}/0"
    options = {"bind": "127.0.0.1", "port": port, "requirepass": PASSWORD, "save": "", "dir": area.path}
    server = area.program("broker", ["redis-server", *(str(x) for key in options for x in (f"--{key}", options[key]))])
    (area.path / "its_tasks.py").write_text(TASKS)
    with Redis.from_url(url, decode_responses=True) as redis:

        def worker(name: str, *flags: str) -> Worker:
            argv = [
                sys.executable,
                "-m",
                "celery",
                "-A",
                "its_tasks",
                "worker",
                f"-ncelery@{name}",
                f"-Q{name}",
                *flags,
            ]
            program = area.program(f"worker-{name}", argv, env={"BROKER": url}, cwd=area.path)
            return Worker(name, url, redis, program)

        auto, plain = worker("auto", "--autoscale=2,2"), worker("plain", "--concurrency=2")
        programs = [auto.program, plain.program]
        try:
            server.start().wait_until(lambda: answers(redis), "Redis to answer", SECONDS)
            for program in programs:
                program.start()
            wait_for(programs, lambda: len(asked(url, ["auto", "plain"])) == 2, "both workers", 2 * SECONDS)
            yield Running(url, redis, auto, plain)
        finally:
            for program in (*programs, server):
                program.kill()


def answers(redis: Redis) -> bool:
    """Whether Redis is there."""
    with suppress(RedisError):
        return bool(redis.ping())
    return False


@pytest.fixture(params=["auto", "plain"])
def worker(running: Running, request: pytest.FixtureRequest) -> Worker:
    """One of the two after the other, at two slots and idle."""
    return at_two(getattr(running, request.param))


@pytest.fixture
def auto(running: Running) -> Worker:
    """The one with autoscale."""
    return at_two(running.auto)


@pytest.fixture
def plain(running: Running) -> Worker:
    """The one without."""
    return at_two(running.plain)


def at_two(worker: Worker) -> Worker:
    """The worker, at two slots and idle."""
    worker.end_all_once()
    if worker.look().processes != 2:
        worker.set_slots(2)
    worker.reach(2)
    return worker


def test_a_worker_says_its_slots_its_queues_and_what_it_runs(running: Running, worker: Worker) -> None:
    autoscaled = worker is running.auto
    first = worker.look()
    assert first == Slots(2, 2, 0, autoscaled=autoscaled, queues=(worker.name,), oldest=0, begun=first.begun)
    begun = time.time()
    worker.begin(3, busy=2)
    seen = worker.wait(lambda seen: seen.oldest > 0.3, "tasks that run for a while")
    assert (seen.processes, seen.prefetch, seen.busy) == (2, 2, 2), "the third waits at the broker"
    assert first.begun is not None
    assert seen.begun == first.begun + 2
    assert queued(worker.url, [worker.name, "nothing"]) == {worker.name: 1, "nothing": 0}
    assert seen.oldest < time.time() - begun
    worker.end_all_once()


@pytest.mark.parametrize(
    ("name", "message", "expected"),
    [
        ("execute_workload", WORKLOAD % ("e" * 1200), {"etl.load": 2}),
        ("execute_command", ["airflow", "tasks", "run", "etl", "load", "manual__1", "--local"], {"etl.load": 2}),
        ("execute_command", ["airflow", "tasks", "run", "d" * 250, "t" * 250], {f"{'d' * 66}…{'t' * 33}": 2}),
        ("execute_workload", '{"token":"","callback":{"id":"1"},"type":"ExecuteCallback"}', {}),
        ("execute_workload", '{"ti":7}', {}),
        ("execute_workload", "[" * 2000, {}),
        ("execute_command", ["rm", "-rf", "/", "etl", "load"], {}),
        ("execute_command", 7, {}),
    ],
)
def test_a_worker_names_the_tasks_of_airflow_that_it_runs(
    worker: Worker, name: str, message: object, expected: Mapping[str, int]
) -> None:
    with Celery(broker=worker.url, set_as_current=False) as celery:
        for _ in range(2):
            celery.send_task(name, (message,), queue=worker.name)
    try:
        assert worker.wait(lambda seen: seen.busy == 2, "two tasks").tasks == expected
    finally:
        worker.redis.rpush("workload-end", "", "")
        worker.wait(lambda seen: seen.busy == 0, "no task")


def test_slots_are_raised_and_lowered_while_a_worker_is_idle(worker: Worker) -> None:
    worker.set_slots(4)
    assert worker.reach(4).prefetch == 4
    worker.begin(6, busy=4)
    worker.end_all_once()
    worker.set_slots(1)
    assert worker.reach(1).prefetch == 1
    worker.begin(2, busy=1)
    worker.end_all_once()
    assert worker.look().processes == 1


def test_slots_are_raised_under_running_tasks(worker: Worker) -> None:
    worker.begin(4, busy=2)
    worker.set_slots(3)
    assert worker.reach(3).prefetch == 3
    worker.wait(lambda seen: seen.busy == 3, "three tasks")
    worker.end_all_once()


def test_with_autoscale_slots_are_lowered_under_running_tasks_and_none_is_lost(auto: Worker) -> None:
    auto.begin(5, busy=2)
    auto.set_slots(1)
    seen = auto.look()
    assert (seen.processes, seen.prefetch, seen.busy) == (2, 1, 2), "at once it takes no more, and what runs runs on"
    auto.end(1)
    auto.wait(lambda seen: seen.busy == 1, "one task")
    auto.set_slots(1)
    assert auto.reach(1).busy == 1
    auto.end_all_once()


def test_without_autoscale_only_idle_slots_are_taken_away_and_no_task_is_lost(plain: Worker) -> None:
    plain.begin(2, busy=2)
    with pytest.raises(Refused, match=r"^All slots of the worker plain are busy: it gets fewer when tasks end, or at"):
        plain.set_slots(1)
    seen = plain.look()
    assert (seen.processes, seen.prefetch, seen.busy) == (2, 2, 2)
    plain.end(1)
    plain.wait(lambda seen: seen.busy == 1, "an idle slot")
    plain.set_slots(1)
    seen = plain.look()
    assert (seen.processes, seen.prefetch, seen.busy) == (1, 1, 1)
    plain.end_all_once()


def test_a_worker_keeps_one_slot(plain: Worker) -> None:
    for slots in (1, 0, -3):
        with pytest.raises(Refused, match="The worker plain keeps at least one slot") if slots < 1 else nullcontext():
            plain.set_slots(slots)
    assert plain.reach(1).prefetch == 1


def test_what_a_worker_refuses_is_told_in_its_words(plain: Worker, auto: Worker) -> None:
    with pytest.raises(Refused, match=r"The worker plain refuses autoscale: ValueError.*Autoscale not enabled"):
        set_slots(plain.url, "plain", auto.look(), 3)
    with pytest.raises(Refused, match="The worker auto refuses pool_grow: pool_grow is not supported with autoscale"):
        set_slots(auto.url, "auto", plain.look(), 3)
    assert (plain.look().processes, auto.look().processes) == (2, 2)


def test_a_worker_that_does_not_answer_is_absent_and_its_late_answer_is_nobodys(running: Running, auto: Worker) -> None:
    os.kill(auto.program.pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        assert set(asked(running.url, ["auto", "plain", "never-was"])) == {"plain"}
        assert time.monotonic() - begun < QUICK
        with pytest.raises(Unavailable, match="The worker auto does not answer"):
            set_slots(running.url, "auto", running.plain.look(), 3, QUICK)
    finally:
        os.kill(auto.program.pid, signal.SIGCONT)
    for _ in range(5):
        assert set(asked(running.url, ["auto", "plain"], SECONDS)) == {"auto", "plain"}
    assert asked(running.url, []) == {}, "not everybody"


def test_calls_leave_nothing_at_the_broker(running: Running, worker: Worker) -> None:
    async def many(broker: Broker) -> None:
        await asyncio.gather(*(broker.workers([worker.name]) for _ in range(20)))

    before = (len(running.redis.client_list()), sorted(running.redis.keys()))
    threads = threading.active_count()
    broker = Broker(running.url, SECONDS)
    asyncio.run(many(broker))
    assert threading.active_count() <= threads + CALLS
    broker.close()
    worker.program.wait_until(lambda: len(running.redis.client_list()) <= before[0], "the connections to end", SECONDS)
    assert sorted(running.redis.keys()) == before[1]


# Servers that are no broker, and URLs that are none.


@contextmanager
def listening(answer: bytes = b"", *, hangs_up: bool = False) -> Iterator[int]:
    """A port that takes connections, says that and no more."""
    kept = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    kept.append(connection)
                    connection.sendall(answer)
                    if hangs_up:
                        connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in kept:
                connection.close()


def failure(url: str, kind: type[TunerError], seconds: float = 1) -> str:
    """What a question to `url` ends in, within its time limit; the password is nowhere in it."""
    broker = Broker(url, seconds)
    begun = time.monotonic()
    with pytest.raises(kind) as caught:
        asyncio.run(broker.workers(["worker"]))
    assert time.monotonic() - begun < seconds + 1
    broker.close()
    hides(f"{broker!r} {vars(broker)['_threads']!r}")
    return told(caught.value)


def told(error: BaseException) -> str:
    """Its sentence; the password is in none of the errors it came of."""
    one: BaseException | None = error
    while one is not None:
        hides("".join(traceback.format_exception(one)) + repr(one))
        one = one.__cause__ or one.__context__
    return str(error)


def hides(text: str) -> None:
    assert not any(part in text for part in ("a-password", "nobody may", "nobody%20may", "read@all"))


@pytest.fixture(autouse=True)
def the_log_hides_the_password(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """At its most talkative, and nobody has put a handler into it."""
    handlers = list(logging.getLogger().handlers)
    with caplog.at_level(logging.DEBUG):
        yield
    hides(caplog.text)
    assert list(logging.getLogger().handlers) == handlers


# py-amqp leaves a socket to the garbage collector when the first words are wrong.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("scheme", ["redis", "rediss", "amqp", "amqps"])
def test_a_server_that_is_no_broker_or_not_there_is_told_in_time(scheme: str) -> None:
    def of(port: int) -> str:
        return failure(f"{scheme}://user:{QUOTED}@127.0.0.1:{port}/0", Unavailable)

    assert of(free_port()) == "The broker does not answer (no connection)."
    with listening() as port:
        assert of(port) == "The broker does not answer (no answer in time)."
    with listening(hangs_up=True) as port:
        assert of(port) == "The broker does not answer (no connection)."
    for garbage in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 100, b"*1000000\r\n", f"-ERR {PASSWORD}\r\n".encode()):
        with listening(garbage) as port:
            assert of(port).startswith("The broker does not answer (")
    gc.collect()


def test_a_host_without_a_name_is_told() -> None:
    assert (
        failure(f"redis://:{QUOTED}@no-such-host.invalid/0", Unavailable)
        == "The broker does not answer (no connection)."
    )


def test_a_broker_that_refuses_is_for_the_user_to_mend(running: Running) -> None:
    wrong = (
        running.url.replace(QUOTED, f"{QUOTED}x"),
        running.url.replace(f":{QUOTED}@", ""),
        running.url.replace("redis://", "redis://nobody"),
        running.url.replace("/0", "/99"),
    )
    for url in wrong:
        assert failure(url, Misconfigured) == (
            "The broker refuses the user, the password or the database: mend the broker's URL."
        )


@pytest.mark.parametrize(
    "url",
    [
        "",
        QUOTED,
        f"redis://:{QUOTED}@",
        f"redis://:{PASSWORD}@redis:6379/0",
        f"redis://:{QUOTED}@redis:a-password/0",
        f"redis://:{QUOTED}@redis/a-database",
        f"redis://:{QUOTED}@redis/0?unknown=1",
        f"http://:{QUOTED}@prometheus:9090/",
        f"memory://:{QUOTED}@here/",
        f"os.path:join://:{QUOTED}@here/",
        f"redis://:{QUOTED}@redis/0;memory://here",
        f"sqs://user:{QUOTED}@queue",
    ],
)
def test_a_url_that_is_no_brokers_is_for_the_user_to_mend(url: str) -> None:
    with pytest.raises(Misconfigured, match=r"^The broker's URL must be like redis://.* mend it\.$") as caught:
        Broker(url)
    told(caught.value)


def test_sentinels_need_the_name_of_their_master() -> None:
    url = f"sentinel://:{QUOTED}@127.0.0.1:{free_port()};sentinel://127.0.0.1:{free_port()}"
    with pytest.raises(Misconfigured, match="master_name"):
        Broker(url)
    broker = Broker(url, 1, {"master_name": "redis"})
    with pytest.raises(Unavailable) as caught:
        asyncio.run(broker.workers(["worker"]))
    told(caught.value)
    broker.close()


def test_a_hung_broker_delays_nobody_else_and_holds_few_threads(running: Running) -> None:
    async def both(hung: Broker, other: Broker) -> tuple[float, list[object]]:
        asks = [asyncio.create_task(hung.workers(["worker"])) for _ in range(40)]
        await asyncio.sleep(0.2)
        begun = time.monotonic()
        await other.workers(["plain"])
        took = time.monotonic() - begun
        return took, [*await asyncio.gather(*asks, return_exceptions=True)]

    seconds = 2
    with listening() as port:
        hung, other = Broker(f"redis://:{QUOTED}@127.0.0.1:{port}/0", seconds), Broker(running.url)
        threads, begun = threading.active_count(), time.monotonic()
        took, ends = asyncio.run(both(hung, other))
        assert time.monotonic() - begun < seconds + 1
        assert threading.active_count() <= threads + CALLS + 1
        hung.close()
        other.close()
    assert took < seconds / 2
    assert {str(end) for end in ends} == {"The broker does not answer (no answer in time)."}

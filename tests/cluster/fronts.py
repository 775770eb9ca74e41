"""Servers that stand before a real one, and answer in its place what a test tells them to."""

import json
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPResponse, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from testbed.commands import run
from testbed.controlplane import ControlPlane
from testbed.loopback import fetch
from testbed.programs import program

Object = dict[str, Any]

MOST_HELD = 40.0
"""Seconds that a request is held at most."""


@dataclass(frozen=True)
class Answer:
    """What a server of ours says. `body` in pieces may take its time, and has no end that is told."""

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Fault = Callable[[str, Callable[[], bytes]], Answer | None]
"""From a question's PromQL and a way to have it answered to what is said; None hangs up."""


class Handler(BaseHTTPRequestHandler):
    """What our servers have in common."""

    protocol_version = "HTTP/1.1"

    def say(self, answer: Answer | None) -> None:
        """Send it; or hang up."""
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if isinstance(answer.body, bytes):
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)
            return
        self.send_header("Connection", "close")
        self.end_headers()
        for piece in answer.body:
            self.wfile.write(piece)
            self.wfile.flush()

    def log_message(self, format: str, *words: object) -> None:  # noqa: A002 - the base's signature
        """Nothing."""


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """A client that hung up is no news."""


@contextmanager
def _listening(listener: ThreadingHTTPServer) -> Iterator[None]:
    thread = Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


@dataclass
class MetricsFront:
    """Stands before a real Prometheus, and does to its answers what `fault` says."""

    target: str
    url: str = ""
    fault: Fault | None = None
    asked: list[str] = field(default_factory=list)
    """The PromQL of every question."""

    def answer(self, promql: str, query: str) -> Answer | None:
        """What is said to one question."""
        self.asked.append(promql)

        def real() -> bytes:
            return fetch(f"{self.target}{query}")

        try:
            return self.fault(promql, real) if self.fault else Answer(body=real())
        except OSError:
            return None  # Prometheus is gone


@contextmanager
def before_prometheus(target: str) -> Iterator[MetricsFront]:
    """A front for the Prometheus at this URL, until the end of the block."""
    front = MetricsFront(target)

    class Metrics(Handler):
        def do_GET(self) -> None:
            promql = parse_qs(urlsplit(self.path).query).get("query", [""])[0]
            self.say(front.answer(promql, self.path))

    listener = _Listener(("127.0.0.1", 0), Metrics)
    front.url = f"http://127.0.0.1:{listener.server_port}"
    with _listening(listener):
        yield front


@dataclass
class Rule:
    """What becomes of requests to the API server whose `METHOD path?query` matches."""

    pattern: str
    answer: Callable[[], Answer | None]
    """None hangs up; it may wait before."""
    left: int = 1_000_000
    """How many requests it is still for."""
    done: bool = False
    """The API server does what is asked all the same; only its answer is lost."""
    hits: int = 0


def refusal(code: int, reason: str = "", headers: Mapping[str, str] | None = None) -> Callable[[], Answer]:
    """An answer in the form of the API server's."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": reason}
    head = {"Content-Type": "application/json", **(headers or {})}
    return lambda: Answer(code, json.dumps(body).encode(), head)


class _Stream:
    """A watch that is handed on line by line."""

    def __init__(self, what: str, handler: Handler) -> None:
        self.what = what
        self._handler = handler
        self.silent = False

    def say(self, line: bytes) -> None:
        if not self.silent:
            self._handler.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self._handler.wfile.flush()

    def cut(self) -> None:
        with suppress(OSError):
            self._handler.connection.shutdown(2)


class ApiFront:
    """A way to the API server, in TLS with a certificate of its own, that reads what is asked."""

    def __init__(self, control_plane: ControlPlane, folder: Path) -> None:
        pki = folder / "front-pki"
        pki.mkdir()
        run([program("control-plane"), "pki", "-folder", pki, "-server", "https://127.0.0.1"])
        self.rules: list[Rule] = []
        self.asked: list[tuple[float, str]] = []
        """When and what, of every request."""
        self._streams: set[_Stream] = set()
        self._ca = pki / "ca.crt"
        self._target = control_plane.port
        self._trust = ssl.create_default_context(cafile=str(control_plane.ca))
        own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        own.load_cert_chain(pki / "apiserver.crt", pki / "apiserver.key")
        front = self

        class Api(Handler):
            def __getattr__(self, name: str) -> Callable[[], None]:
                if not name.startswith("do_"):
                    raise AttributeError(name)
                return lambda: front.handle(self)

        self.listener = _Listener(("127.0.0.1", 0), Api)
        # The handshake is for each connection's own thread.
        self.listener.socket = own.wrap_socket(self.listener.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self.listener.server_port}"

    def lead(self, kubeconfig: Path) -> Path:
        """Make a kubeconfig lead here."""
        config = json.loads(kubeconfig.read_text())
        config["clusters"][0]["cluster"] = {"server": self.url, "certificate-authority": str(self._ca)}
        kubeconfig.write_text(json.dumps(config))
        return kubeconfig

    @contextmanager
    def fault(self, *rules: Rule) -> Iterator[Rule]:
        """These rules hold until the end of the block; the first of them."""
        self.rules = list(rules)
        try:
            yield rules[0]
        finally:
            self.rules = []

    def count(self, pattern: str, since: float) -> int:
        """How many requests matched since then (on the monotonic clock)."""
        return sum(at >= since and re.search(pattern, what) is not None for at, what in self.asked)

    def watched(self, pattern: str) -> int:
        """How many watches that match run."""
        return len(self._matching(pattern))

    def cut(self, pattern: str) -> int:
        """Break off the watches that match; how many."""
        found = self._matching(pattern)
        for stream in found:
            stream.cut()
        return len(found)

    def silence(self, pattern: str) -> int:
        """The watches that match say nothing any more; how many."""
        found = self._matching(pattern)
        for stream in found:
            stream.silent = True
        return len(found)

    def inject(self, pattern: str, event: Object) -> int:
        """Say an event of our own on the watches that match; on how many."""
        found = self._matching(pattern)
        for stream in found:
            stream.say(json.dumps(event).encode() + b"\n")
        return len(found)

    def handle(self, handler: Handler) -> None:
        """One request."""
        what = f"{handler.command} {handler.path}"
        self.asked.append((time.monotonic(), what))
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        rule = next((rule for rule in self.rules if rule.left > 0 and re.search(rule.pattern, what)), None)
        if rule is not None:
            rule.left -= 1
            rule.hits += 1
            if rule.done:
                self._forward(handler, body, heard=False)
            handler.say(rule.answer())
            return
        try:
            self._forward(handler, body, heard=True)
        except OSError:
            handler.close_connection = True

    def _forward(self, handler: Handler, body: bytes, *, heard: bool) -> None:
        onward = HTTPSConnection("127.0.0.1", self._target, context=self._trust, timeout=300)
        keep = {key: value for key, value in handler.headers.items() if key.lower() not in {"host", "connection"}}
        keep["Accept-Encoding"] = "identity"
        try:
            onward.request(handler.command, handler.path, body or None, keep)
            answer = onward.getresponse()
            kind = {"Content-Type": answer.headers.get("Content-Type", "application/json")}
            if heard and "watch=true" in handler.path:
                self._stream(handler, answer, kind)
                return
            said = Answer(answer.status, answer.read(), kind)
        finally:
            onward.close()
        if heard:
            handler.say(said)

    def _stream(self, handler: Handler, answer: HTTPResponse, kind: Mapping[str, str]) -> None:
        handler.send_response(answer.status)
        for name, value in {**kind, "Transfer-Encoding": "chunked"}.items():
            handler.send_header(name, value)
        handler.end_headers()
        stream = _Stream(f"{handler.command} {handler.path}", handler)
        self._streams.add(stream)
        try:
            while line := answer.readline():
                stream.say(line)
            stream.say(b"")
        finally:
            self._streams.discard(stream)
            handler.close_connection = True

    def _matching(self, pattern: str) -> list[_Stream]:
        return [stream for stream in list(self._streams) if re.search(pattern, stream.what)]


@contextmanager
def before_api_server(control_plane: ControlPlane, folder: Path) -> Iterator[ApiFront]:
    """A front for the API server, until the end of the block."""
    front = ApiFront(control_plane, folder)
    with _listening(front.listener):
        yield front


class Hold:
    """Holds requests until they are let go."""

    def __init__(self) -> None:
        self.caught = Event()
        self._free = Event()

    def __call__(self) -> Answer | None:
        """Wait; then hang up."""
        self.caught.set()
        self._free.wait(MOST_HELD)
        return None

    def release(self) -> None:
        """Let them go."""
        self._free.set()

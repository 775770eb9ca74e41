"""HTTP servers on the loopback that say what a test wants them to say, and remember what they were asked."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

PATIENCE = 10.0
"""Most seconds that a slow answer takes."""


@dataclass
class Server:
    """A running server. Change `answer` at any time."""

    url: str = ""
    status: int = 200
    body: str | Callable[[], str] = ""
    headers: dict[str, str] = field(default_factory=dict)
    silent: bool = False
    """It takes requests and says nothing."""
    drip: bool = False
    """It says one byte every tenth of a second, without end."""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path and headers of every request."""
    stopping: Event = field(default_factory=Event)


@contextmanager
def serving(
    body: str | Callable[[], str] = "", status: int = 200, **options: bool | Mapping[str, str]
) -> Iterator[Server]:
    """A server on a free port until the end of the block."""
    server = Server(status=status, body=body, **options)  # type: ignore[arg-type] # the options are its fields

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append((self.path, dict(self.headers)))
            if server.silent:
                server.stopping.wait(PATIENCE)
                return
            text = (server.body if isinstance(server.body, str) else server.body()).encode()
            self.send_response(server.status)
            for name, value in server.headers.items():
                self.send_header(name, value)
            if not server.drip:
                self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
            while server.drip and not server.stopping.wait(0.1):
                self.wfile.write(b" ")
                self.wfile.flush()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def log_message(self, format: str, *words: object) -> None:  # noqa: A002 - the base's signature
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.handle_error = lambda *_: None  # type: ignore[method-assign] # a client that hung up is no news
    server.url = f"http://127.0.0.1:{listener.server_port}"
    thread = Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        listener.shutdown()
        listener.server_close()
        thread.join()

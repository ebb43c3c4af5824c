"""An OpenTelemetry collector as far as a test needs one: takes OTLP over HTTP and keeps the spans.

Source: OTLP specification, "OTLP/HTTP".
"""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.nats import HOST, free_port

TIMEOUT_S = 60.0
KINDS = {4: "producer", 5: "consumer"}


class Span(NamedTuple):
    """The content of a span."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_span_id: str
    attributes: dict[str, Any]
    events: list[str]
    failed: bool
    seconds: float
    resource: dict[str, Any]


class Collector:
    """A collector on a free loopback port, which it keeps when it is started again; `texts` is all that came in."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.spans: list[Span] = []
        self.raw = b""
        self.paths: set[str] = set()
        self.headers: dict[str, str] = {}
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Take spans."""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.take(self.path, dict(self.headers), body)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Do nothing: requests are not logged."""

        self._server = ThreadingHTTPServer((HOST, self.port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        """Keep the spans of one request."""
        self.paths.add(path)
        self.headers = headers
        self.raw += body
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = attributes(group.resource.attributes)
            self.spans += [
                Span(
                    span.name,
                    KINDS.get(span.kind, str(span.kind)),
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    attributes(span.attributes),
                    [event.name for event in span.events],
                    span.status.code == 2,
                    (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                    resource,
                )
                for scope in group.scope_spans
                for span in scope.spans
            ]

    def wait(self, count: int) -> list[Span]:
        """Return when so many spans have come in."""
        deadline = time.monotonic() + TIMEOUT_S
        while len(self.spans) < count:
            assert time.monotonic() < deadline, f"{len(self.spans)} spans of {count}"
            time.sleep(0.01)
        return list(self.spans)

    def stop(self) -> None:
        """Refuse connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def attributes(pairs: Any) -> dict[str, Any]:
    """Return attributes as a dict."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}

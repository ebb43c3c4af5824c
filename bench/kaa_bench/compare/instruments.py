"""The load generator and the NATS sink, each in its own process, so that their CPU is measured separately.

This module talks to them from the measuring process. Connecting is in connecting.py; the native work is in load/.
"""

import multiprocessing
import signal
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple, Self

from kaa_bench.connecting import DATAGRAM_PROTOCOLS, Address, LoadSpec, Protocol, connect_load, connect_sink
from kaa_bench.errors import BenchError
from kaa_bench.load.discard import DiscardServer
from kaa_bench.load.loop import Load, RunResult
from kaa_bench.processes import HOST, cpu_seconds

STALL_TIMEOUT_S = 15.0
"""A run without traffic for this long has stalled."""
STOP_TIMEOUT_S = 5.0
DISCARD_BUFFER = 4 << 20
"""Bytes of the receive buffer of the discard server."""
DISCARD_BACKLOG = 1024
PROGRESS_PERIOD_S = 1.0


class Instrument:
    """A child process that answers one request at a time over a pipe. Its errors are raised here."""

    def __init__(self, target: Callable[..., None], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(target, theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self._receive()
        except BaseException:
            self.close()
            raise

    def _request(self, **request: object) -> Any:
        self._pipe.send(request)
        return self._receive()

    def _receive(self) -> Any:
        try:
            reply = self._pipe.recv()
        except EOFError:
            raise BenchError(f"{type(self).__name__} ended with {self._process.exitcode}") from None
        if isinstance(reply, BenchError):
            raise reply
        return reply

    def close(self) -> None:
        """Stop the process."""
        self._pipe.close()
        self._process.join(STOP_TIMEOUT_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.terminate()
        self.close()


class Progress(NamedTuple):
    """How far a run of the load generator is."""

    seconds: float
    sent: int
    acknowledged: int


class LoadGenerator(Instrument):
    """Simulated devices, connected to the server at `address`."""

    def __init__(self, spec: LoadSpec, address: Address) -> None:
        super().__init__(_serve_load, spec, address)

    def run(
        self,
        *,
        messages: int | None = None,
        seconds: float | None = None,
        rate: float = 0,
        show: Callable[[Progress], None] | None = None,
    ) -> RunResult:
        """Send a number of messages, or for a time, and wait for the answers; see `Load.run`.

        `show` is called every second of the run.
        """
        self._pipe.send(({"messages": messages, "seconds": seconds, "rate": rate}, show is not None))
        while isinstance(reply := self._receive(), Progress):
            assert show is not None
            show(reply)
        assert isinstance(reply, RunResult)
        return reply


class Sink(Instrument):
    """The extension service that receives the messages of the gateway. With `answers` it answers 200."""

    def __init__(self, nats: Address, *, answers: bool) -> None:
        super().__init__(_serve_sink, nats, answers)

    def received(self) -> int:
        """Return the number of messages received since the start."""
        return int(self._request())


class Discard(Instrument):
    """A server at `address` that answers the messages of a load of `protocol`, and discards them."""

    def __init__(self, protocol: Protocol) -> None:
        super().__init__(_serve_discard, protocol)
        self.address: Address = self._request()

    def cpu_seconds(self) -> float:
        """Return the CPU time used so far."""
        assert self._process.pid is not None
        return cpu_seconds(self._process.pid)


# The code of the child processes


def _run(target: Callable[..., None], pipe: Connection, *arguments: object) -> None:
    # Ctrl-C reaches the whole process group; the parent stops its children in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        target(pipe, *arguments)
    except BenchError as error:
        pipe.send(error)
    except EOFError:
        pass


def _serve_load(pipe: Connection, spec: LoadSpec, address: Address) -> None:
    load = connect_load(spec, address)
    pipe.send(None)
    while True:
        request, watched = pipe.recv()
        ended = threading.Event()
        watching = threading.Thread(target=_report_progress, args=(pipe, load, ended))
        if watched:
            watching.start()
        try:
            result = load.run(**request, stall_timeout=STALL_TIMEOUT_S)
        finally:
            ended.set()
            if watched:
                watching.join()
        pipe.send(result)


def _report_progress(pipe: Connection, load: Load, ended: threading.Event) -> None:
    """Send the progress of a run every second. The run holds no lock of the interpreter."""
    began = time.monotonic()
    while not ended.wait(PROGRESS_PERIOD_S):
        pipe.send(Progress(time.monotonic() - began, *load.progress()))


def _serve_sink(pipe: Connection, nats: Address, answers: bool) -> None:
    sink, _connected = connect_sink(nats, answers=answers)
    pipe.send(None)
    while True:
        sink.drain(pipe.fileno())
        pipe.recv()
        pipe.send(sink.received)


def _serve_discard(pipe: Connection, protocol: Protocol) -> None:
    datagrams = protocol in DATAGRAM_PROTOCOLS
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM) as listening:
        if datagrams:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DISCARD_BUFFER)
        listening.bind((HOST, 0))
        if not datagrams:
            listening.listen(DISCARD_BACKLOG)
        server = DiscardServer(listening, protocol)
        pipe.send(None)
        pipe.recv()
        pipe.send(listening.getsockname())
        server.serve(pipe.fileno())

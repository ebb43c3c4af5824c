"""The end of a tick: what always has something to write does not keep the event loop."""

from itertools import pairwise

from kaa_gateway.bus.link import Link
from kaa_gateway.counters import Counters
from kaa_gateway.fleet.directory import SessionDirectory
from kaa_gateway.slices import Slices

from tests.unit.kp.worker_double import Transport, WorkerDouble

WRITES = 1000


class EchoingTransport(Transport):
    """Has the worker greet the others with each write, which is output that is due at the end of the same tick."""

    def __init__(self, directory: SessionDirectory) -> None:
        super().__init__()
        self._directory = directory
        self.writes = 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        if self.writes < WRITES:
            self._directory.others.say_hello()  # type: ignore[attr-defined]


def make_directory(link: Link, slices: Slices, counters: Counters) -> SessionDirectory:
    return SessionDirectory(link, slices, counters, instance="kpc", replica_id="replica-1", timeout=5.0)


def test_output_that_always_comes_again_lets_the_event_loop_go_on() -> None:
    with WorkerDouble(make_directory=make_directory) as worker:
        assert worker.directory is not None
        worker.loop.run()
        transport = EchoingTransport(worker.directory)
        nats = worker.link.begin()
        nats.connection_made(transport)  # type: ignore[arg-type]
        worker.link.resume(2**20, True)
        seen = []
        while worker.loop.turn():
            seen.append(transport.writes)
        assert transport.writes == WRITES
        steps = [after - before for before, after in pairwise(seen)]
        assert max(steps) < WRITES / 10

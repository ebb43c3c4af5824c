"""Runs the servers of a comparison: each is started at its first use, and runs until the end.

Each gateway has a NATS server of its own, on which no bridge is. Gateways on the same one are one server for their
clients, and then a CONNECT costs more.
"""

from contextlib import ExitStack
from functools import cached_property
from typing import TypeVar

from rich.console import Console

from kaa_bench.peers.mqtt_floor import MqttFloor
from kaa_bench.peers.servers import AiohttpNats, NatsFloor, Peer
from kaa_bench.processes import Gateway, NatsServer

P = TypeVar("P", bound=Peer)


class Servers:
    """NATS, gateways and peers. `stack` stops them."""

    def __init__(self, stack: ExitStack, progress: Console, *, gateway_only: bool = False) -> None:
        self._stack = stack
        self._progress = progress
        self._gateway_only = gateway_only
        self._peers: dict[type[Peer], Peer | None] = {}
        self._gateways: dict[int, tuple[Gateway, NatsServer]] = {}

    @property
    def gateway(self) -> Gateway:
        """Return the gateway with one worker."""
        return self.gateway_of(1)[0]

    @property
    def nats(self) -> NatsServer:
        """Return the NATS server behind that gateway."""
        return self.gateway_of(1)[1]

    @cached_property
    def other_nats(self) -> NatsServer:
        """Return the NATS server for what is measured without a gateway."""
        return self._stack.enter_context(NatsServer())

    @cached_property
    def storing_nats(self) -> NatsServer:
        """Return the NATS server with JetStream behind the durable gateway."""
        return self._stack.enter_context(NatsServer(jetstream=True))

    @cached_property
    def durable_gateway(self) -> Gateway:
        """Return the gateway with one worker and a durable extension instance."""
        return self._stack.enter_context(Gateway(self.storing_nats, durable=True))

    @cached_property
    def extension_nats(self) -> NatsServer:
        """Return the NATS server with JetStream between a gateway and the extension services that are measured."""
        return self._stack.enter_context(NatsServer(jetstream=True))

    @cached_property
    def extension_gateway(self) -> Gateway:
        """Return the gateway in front of the extension services that are measured."""
        return self._stack.enter_context(Gateway(self.extension_nats))

    def gateway_of(self, workers: int) -> tuple[Gateway, NatsServer]:
        """Return the gateway with so many workers, and its NATS server."""
        if workers not in self._gateways:
            nats = self._stack.enter_context(NatsServer())
            self._gateways[workers] = self._stack.enter_context(Gateway(nats, workers)), nats
        return self._gateways[workers]

    def peer(self, kind: type[P]) -> P | None:
        """Return a peer. If it is not installed, print that once and return None."""
        if self._gateway_only:
            return None
        if kind not in self._peers:
            self._peers[kind] = self._start(kind)
        peer = self._peers[kind]
        assert peer is None or isinstance(peer, kind)
        return peer

    def peers(self, *kinds: type[P]) -> list[P]:
        """Return the peers that are installed."""
        return [peer for peer in map(self.peer, kinds) if peer is not None]

    def _start(self, kind: type[Peer]) -> Peer | None:
        if kind.program() is None:
            self._progress.print(
                f"{kind.title} is not installed: the gateway is measured without it", style="bold"
            )
            return None
        peer = kind(self.nats) if issubclass(kind, AiohttpNats | NatsFloor | MqttFloor) else kind()
        return self._stack.enter_context(peer)

"""The servers of a comparison: each is started when it is first asked for, and stays up over all rounds."""

from contextlib import ExitStack
from functools import cached_property
from typing import TypeVar

from rich.console import Console

from kaa_bench.peers.mqtt_floor import MqttFloor
from kaa_bench.peers.servers import AiohttpNats, CoapFloor, Peer
from kaa_bench.processes import Gateway, NatsServer

P = TypeVar("P", bound=Peer)


class Servers:
    """NATS, gateways and peers; `stack` stops them."""

    def __init__(self, stack: ExitStack, progress: Console, *, gateway_only: bool = False) -> None:
        self._stack = stack
        self._progress = progress
        self._gateway_only = gateway_only
        self._peers: dict[type[Peer], Peer | None] = {}
        self._gateways: dict[int, Gateway] = {}

    @cached_property
    def nats(self) -> NatsServer:
        """The NATS server behind the gateway."""
        return self._stack.enter_context(NatsServer())

    @property
    def gateway(self) -> Gateway:
        """The gateway, one worker."""
        return self.gateway_of(1)

    @cached_property
    def storing_nats(self) -> NatsServer:
        """The NATS server with JetStream behind the gateway whose extension instance is durable."""
        return self._stack.enter_context(NatsServer(jetstream=True))

    @cached_property
    def durable_gateway(self) -> Gateway:
        """The gateway, one worker, with a durable extension instance."""
        return self._stack.enter_context(Gateway(self.storing_nats, durable=True))

    def gateway_of(self, workers: int) -> Gateway:
        """The gateway with so many workers."""
        if workers not in self._gateways:
            self._gateways[workers] = self._stack.enter_context(Gateway(self.nats, workers))
        return self._gateways[workers]

    def peer(self, kind: type[P]) -> P | None:
        """A peer; None, and said once, if it is not installed."""
        if self._gateway_only:
            return None
        if kind not in self._peers:
            self._peers[kind] = self._start(kind)
        peer = self._peers[kind]
        assert peer is None or isinstance(peer, kind)
        return peer

    def peers(self, *kinds: type[P]) -> list[P]:
        """Those of the peers that are installed."""
        return [peer for peer in map(self.peer, kinds) if peer is not None]

    def _start(self, kind: type[Peer]) -> Peer | None:
        if kind.program() is None:
            self._progress.print(
                f"{kind.title} is not installed: the gateway is measured without it", style="bold"
            )
            return None
        peer = kind(self.nats) if issubclass(kind, AiohttpNats | CoapFloor | MqttFloor) else kind()
        return self._stack.enter_context(peer)

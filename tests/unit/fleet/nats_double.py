"""A cluster of NATS servers in memory, in which a seed decides what arrives first.

Each worker has a connection to one server. What a connection or a route between two servers carries keeps its order;
all else may overtake. So a server may learn of a subscription at another server long after others have: as with real
servers, a message that is published there meanwhile does not go to that subscription.

Source: NATS documentation, "Client Protocol" and "NATS Cluster Protocol" (RS+, RS-, RMSG).
"""

import random
import re
from collections import Counter, deque
from collections.abc import Callable
from functools import partial

LINE = re.compile(rb"(SUB|UNSUB|PUB|PING|PONG)(?: ([^\r]*))?\r\n")


class NatsConnection:
    """A worker's connection: `deliver` takes bytes for the worker."""

    def __init__(self, server: "NatsDouble", deliver: Callable[[bytes], None]) -> None:
        self.server = server
        self.deliver = deliver
        self.subscriptions: dict[bytes, bytes] = {}
        """Subjects by subscription ID; the last token may be `*`."""

    def matching(self, subject: bytes) -> list[bytes]:
        """Return the IDs of the subscriptions that get a message."""
        return [sid for sid, pattern in self.subscriptions.items() if matches(pattern, subject)]


class NatsDouble:
    """One server of a cluster."""

    def __init__(self) -> None:
        self.connections: list[NatsConnection] = []
        self.interest: dict[NatsDouble, set[bytes]] = {}
        """What other servers have subscriptions for, as far as this one knows."""

    def subjects(self) -> Counter[bytes]:
        """Return how many subscriptions there are, by subject."""
        return Counter(subject for each in self.connections for subject in each.subscriptions.values())


class ClusterDouble:
    """Servers, and what is under way to and between them."""

    def __init__(self, servers: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.servers = [NatsDouble() for _ in range(servers)]
        for server in self.servers:
            server.interest = {other: set() for other in self.servers if other is not server}
        self._under_way: dict[object, deque[Callable[[], object]]] = {}
        """What arrives, by the way that it takes."""
        self._slow: object = None
        self._held: object = None

    def connect(self, server: int, deliver: Callable[[bytes], None]) -> NatsConnection:
        """Return a new connection to a server."""
        connection = NatsConnection(self.servers[server], deliver)
        self.servers[server].connections.append(connection)
        return connection

    def write(self, connection: NatsConnection, data: bytes) -> None:
        """Send a server what a worker has written at once."""
        if data:
            self._send(connection, partial(self._handle, connection, data))

    def step(self) -> bool:
        """Let one thing arrive that is under way; False if there is none. One way is slower than others for a while."""
        ways = [way for way, queue in self._under_way.items() if queue and way != self._held]
        if not ways:
            return False
        if self._slow not in ways or self.random.random() < 0.02:
            self._slow = self.random.choice(ways)
        fast = [way for way in ways if way is not self._slow]
        way = self.random.choice(fast) if fast and self.random.random() < 0.95 else self.random.choice(ways)
        self._under_way[way].popleft()()
        return True

    def hold(self, server: NatsDouble, other: NatsDouble) -> None:
        """Hold back what one server sends another, until `release`."""
        self._held = (server, other)

    def release(self) -> None:
        """Let go on what was held back."""
        self._held = None

    def _send(self, way: object, arrive: Callable[[], object]) -> None:
        self._under_way.setdefault(way, deque()).append(arrive)

    def _handle(self, connection: NatsConnection, data: bytes) -> None:
        at = 0
        while at < len(data):
            line = LINE.match(data, at)
            assert line is not None, data[at : at + 80]
            at = line.end()
            words = (line[2] or b"").split()
            if line[1] == b"SUB":
                self._change(connection, words[-1], words[0])
            elif line[1] == b"UNSUB":
                self._change(connection, words[0], None)
            elif line[1] == b"PING":
                self._deliver(connection, b"PONG\r\n")
            elif line[1] == b"PUB":
                payload = data[at : at + int(words[-1])]
                at += len(payload) + 2
                self._publish(connection, words[0], words[1] if len(words) == 3 else b"", payload)

    def _change(self, connection: NatsConnection, sid: bytes, subject: bytes | None) -> None:
        server = connection.server
        before = set(server.subjects())
        if subject is None:
            del connection.subscriptions[sid]
        else:
            assert sid not in connection.subscriptions
            connection.subscriptions[sid] = subject
        after = set(server.subjects())
        for other in server.interest:
            for gone in before - after:
                self._send((server, other), partial(other.interest[server].discard, gone))
            for new in after - before:
                self._send((server, other), partial(other.interest[server].add, new))

    def _publish(self, connection: NatsConnection, subject: bytes, reply: bytes, payload: bytes) -> None:
        server = connection.server
        interested = [
            other
            for other, subjects in server.interest.items()
            if any(matches(each, subject) for each in subjects)
        ]
        for other in interested:
            self._send((server, other), partial(self._fan_out, other, None, subject, reply, payload))
        if not self._fan_out(server, connection, subject, reply, payload) and not interested and reply:
            header = b"NATS/1.0 503\r\nNats-Subject: %b\r\n\r\n" % subject
            for sid in connection.matching(reply):
                head = b"HMSG %b %b %d %d\r\n" % (reply, sid, len(header), len(header))
                self._deliver(connection, head + header + b"\r\n")

    def _fan_out(
        self,
        server: NatsDouble,
        publisher: NatsConnection | None,
        subject: bytes,
        reply: bytes,
        payload: bytes,
    ) -> bool:
        delivered = False
        for connection in server.connections:
            if connection is publisher:
                continue  # workers connect with `echo: false`
            for sid in connection.matching(subject):
                words = b" ".join(filter(None, (subject, sid, reply, b"%d" % len(payload))))
                self._deliver(connection, b"MSG %b\r\n%b\r\n" % (words, payload))
                delivered = True
        return delivered

    def _deliver(self, connection: NatsConnection, data: bytes) -> None:
        self._send((connection, "back"), partial(connection.deliver, data))


def matches(pattern: bytes, subject: bytes) -> bool:
    """Return whether a subscription gets what is published to a subject."""
    if pattern.endswith(b".*"):
        prefix, _, last = subject.rpartition(b".")
        return prefix == pattern[:-2] and bool(last)
    return pattern == subject

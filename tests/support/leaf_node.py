"""A NATS server at a site, which is a leaf node of a hub."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.nats import HOST, NatsServer, free_port
from tests.support.proxy import FaultProxy


@contextmanager
def leaf(
    *, hub_domain: str | None = None, node_domain: str | None = None
) -> Iterator[tuple[NatsServer, NatsServer, FaultProxy]]:
    """A hub, a leaf node, and what is between them. Each has JetStream if it has a domain."""
    port = free_port()
    with (
        NatsServer(
            config=f'leafnodes {{ listen: "{HOST}:{port}" }}\n{jetstream_of(hub_domain)}',
            jetstream=hub_domain is not None,
        ) as hub,
        FaultProxy(port) as proxy,
        NatsServer(
            config=f'leafnodes {{ reconnect: 1, remotes: [{{ url: "{proxy.url}" }}] }}\n{jetstream_of(node_domain)}',
            jetstream=node_domain is not None,
        ) as node,
    ):
        yield hub, node, proxy


def jetstream_of(domain: str | None) -> str:
    return "" if domain is None else f"jetstream {{ domain: {domain} }}"

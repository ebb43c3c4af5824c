"""The keys of `kaa.kpc.nats`."""

from typing import Annotated

from msgspec import Meta

from kaa_gateway.config.keys.units import GiB, KiB, MiB
from kaa_gateway.config.schema import Section
from kaa_gateway.config.value_types import (
    Boolean,
    NatsUrls,
    OptionalName,
    OptionalPath,
    Seconds,
    Size,
    masked,
)


class NatsTls(Section, frozen=True, kw_only=True):
    """TLS towards NATS servers."""

    ca_file: Annotated[
        OptionalPath, Meta(description="Certificate authorities that NATS servers are verified with, PEM.")
    ] = None
    cert_file: Annotated[OptionalPath, Meta(description="Client certificate chain for NATS, PEM.")] = None
    key_file: Annotated[OptionalPath, Meta(description="Private key of the client certificate, PEM.")] = None
    handshake_first: Annotated[
        Boolean,
        Meta(
            description="Whether connections begin with TLS, before INFO: for servers with `handshake_first: true`."
        ),
    ] = False


class Nats(Section, frozen=True, kw_only=True):
    """The connection to NATS."""

    urls: Annotated[
        NatsUrls,
        Meta(
            description="NATS servers, tried in turn; credentials may be in the URL.",
            extra={"variable": "NATS_URLS"},
        ),
    ] = ("nats://nats:4222",)
    credentials_file: Annotated[
        OptionalPath, Meta(description="NATS credentials file (.creds) with a user JWT and seed.")
    ] = None
    ping_timeout: Annotated[
        Seconds,
        Meta(ge=0.1, le=3600, description="Seconds without a PONG after which a connection counts as lost."),
    ] = 10.0
    max_pending_bytes: Annotated[
        Size,
        Meta(
            ge=64 * KiB,
            le=64 * GiB,
            description="Bytes not confirmed by NATS at which reading from devices pauses.",
        ),
    ] = 64 * MiB
    jetstream_domain: Annotated[
        OptionalName,
        Meta(
            description="The JetStream domain of streams and buckets, for a gateway at a leaf node; none: that of the "
            "server which it is connected to."
        ),
    ] = None
    tls: NatsTls = NatsTls()

    def __repr__(self) -> str:
        """Return a text without credentials: a configuration may end up in a log or a traceback."""
        return f"Nats(urls={tuple(map(masked, self.urls))!r}, ...)"

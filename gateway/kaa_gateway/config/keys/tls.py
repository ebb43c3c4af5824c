"""The keys that all listeners with TLS or DTLS have.

`kaa_gateway.net.certificates` checks what the files hold.
"""

from typing import Annotated, Literal

from msgspec import Meta, field

from kaa_gateway.config.keys.units import DAY, MANY
from kaa_gateway.config.schema import Section
from kaa_gateway.config.value_types import (
    Boolean,
    Ciphers,
    HostNames,
    Integer,
    LevelName,
    OptionalPath,
    Port,
    Seconds,
)

STREAM_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Forward secrecy and authenticated encryption only; what TLS 1.3 has is not in this list."""


DATAGRAM_CIPHERS = (
    "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AESCCM:ECDHE+AESCCM8:kECDHEPSK+CHACHA20:kPSK+AESGCM:kPSK+AESCCM:kPSK+AESCCM8"
    ":@SECLEVEL=0"
)
"""With the suites of RFC 7252 section 9.1, all that many devices have; OpenSSL speaks them at level 0 only."""


class TenantTls(Section, frozen=True, kw_only=True):
    """A tenant with certificate authorities of its own, on a listener with TLS or DTLS."""

    ca_file: Annotated[
        OptionalPath, Meta(description="Certificate authorities whose clients belong to the tenant, PEM.")
    ] = None
    crl_file: Annotated[OptionalPath, Meta(description="Revocation lists of these authorities, PEM.")] = None
    server_names: Annotated[
        HostNames,
        Meta(
            description="Server names (SNI) of the tenant, such as `acme.example.com` or `*.acme.example.com`: "
            "a certificate of a client that asks for one must be one of the tenant."
        ),
    ] = ()
    cert_file: Annotated[
        OptionalPath,
        Meta(description="Certificate for the server names; nothing: that of the listener. PEM."),
    ] = None
    key_file: Annotated[
        OptionalPath, Meta(description="Private key of the certificate, PEM, without a passphrase.")
    ] = None


class ServerTls(Section, frozen=True, kw_only=True):
    """The certificate of a listener with TLS or DTLS, and what its clients must show."""

    enabled: Annotated[Boolean, Meta(description="Whether to listen for it.")] = False
    port: Annotated[Port, Meta(description="Port of the listener.")] = 1
    cert_file: Annotated[
        OptionalPath,
        Meta(description="Certificate of the server, and the intermediate ones after it, PEM."),
    ] = None
    key_file: Annotated[
        OptionalPath, Meta(description="Private key of the certificate, PEM, without a passphrase.")
    ] = None
    ca_file: Annotated[
        OptionalPath, Meta(description="Certificate authorities that clients are verified with, PEM.")
    ] = None
    crl_file: Annotated[
        OptionalPath,
        Meta(description="Revocation lists of the authorities that issue client certificates, PEM."),
    ] = None
    tenants: dict[LevelName, TenantTls] = field(default_factory=dict)
    """By tenant ID."""
    client_certificate: Annotated[
        Literal["off", "optional", "required"],
        Meta(
            description="`off`: not asked for; `optional`: one that is shown must be good; `required`: by all."
        ),
    ] = "off"
    ciphers: Annotated[
        Ciphers, Meta(description="Cipher suites of version 1.2, as in openssl-ciphers(1).")
    ] = STREAM_CIPHERS
    handshake_timeout: Annotated[
        Seconds, Meta(ge=0.1, le=3600, description="Seconds that a client has for its handshake.")
    ] = 10.0
    handshakes: Annotated[
        Integer,
        Meta(
            ge=1,
            le=1_000_000,
            description="Handshakes under way in one worker; at one more, the oldest is ended.",
        ),
    ] = 1000


class StreamTls(ServerTls, frozen=True, kw_only=True):
    """TLS over TCP."""

    min_version: Annotated[
        Literal["1.2", "1.3"], Meta(description="The oldest version of TLS that is spoken.")
    ] = "1.2"


class DatagramTls(ServerTls, frozen=True, kw_only=True):
    """DTLS 1.2."""

    ciphers: Annotated[Ciphers, Meta(description="Cipher suites, as in openssl-ciphers(1).")] = (
        DATAGRAM_CIPHERS
    )
    psk_file: Annotated[
        OptionalPath,
        Meta(description="YAML file of pre-shared keys by identity."),
    ] = None
    session_timeout: Annotated[
        Seconds,
        Meta(ge=1, le=7 * DAY, description="Seconds of silence after which a DTLS session is forgotten."),
    ] = DAY
    sessions: Annotated[
        Integer,
        Meta(ge=1, le=MANY, description="DTLS sessions of one worker; the longest silent one goes."),
    ] = 10_000

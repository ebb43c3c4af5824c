"""The keys of `kaa.kpc.transports.http`."""

from typing import Annotated

from msgspec import Meta

from kaa_gateway.config.keys.identity import ClientAuthentication
from kaa_gateway.config.keys.tls import StreamTls
from kaa_gateway.config.keys.units import DAY, GiB, KiB, MiB
from kaa_gateway.config.schema import Section
from kaa_gateway.config.value_types import Boolean, Integer, Origins, PathPrefix, Port, Seconds, Size


class HttpTls(StreamTls, frozen=True, kw_only=True):
    """HTTPS."""

    enabled: Annotated[Boolean, Meta(description="Whether to listen for HTTPS.")] = False
    port: Annotated[Port, Meta(description="TCP port of HTTPS.")] = 8443


class Http(Section, frozen=True, kw_only=True):
    """The HTTP/1.1 server."""

    enabled: Annotated[Boolean, Meta(description="Whether to listen for HTTP.")] = True
    port: Annotated[Port, Meta(description="TCP port of HTTP.")] = 8080
    tls: HttpTls = HttpTls()
    client_authentication: ClientAuthentication = "off"
    path_prefix: Annotated[
        PathPrefix, Meta(description="What stands before /kp1 in the URL path of every request.")
    ] = ""
    allowed_origins: Annotated[
        Origins,
        Meta(
            description="Origins of web pages that may send requests (CORS); `*`: all pages. None: OPTIONS is 405."
        ),
    ] = ()
    max_body_size: Annotated[
        Size, Meta(ge=0, le=GiB, description="Largest request body; a larger one is answered with 413.")
    ] = MiB
    max_header_size: Annotated[
        Size, Meta(ge=KiB, le=MiB, description="All header fields of one request together; more is 431.")
    ] = 16 * KiB
    max_url_length: Annotated[
        Size, Meta(ge=64, le=MiB, description="Length of the request target; a longer one is 414.")
    ] = 4 * KiB
    response_timeout: Annotated[
        Seconds,
        Meta(
            ge=0.1, le=3600, description="Seconds that an extension has to answer a request; then it is 504."
        ),
    ] = 30.0
    read_timeout: Annotated[
        Seconds,
        Meta(
            ge=0.1, le=3600, description="Seconds from the first byte of a request to its last; more is 408."
        ),
    ] = 30.0
    keep_alive_timeout: Annotated[
        Seconds, Meta(ge=0.1, le=DAY, description="Seconds that a connection may be idle between requests.")
    ] = 75.0
    max_wait: Annotated[
        Seconds,
        Meta(ge=1, le=DAY, description="Seconds that a request with `wait` may wait for a push at most."),
    ] = 300.0
    pipelined_requests: Annotated[
        Integer,
        Meta(
            ge=1,
            le=10_000,
            description="Unanswered requests of one connection; reading pauses at this number.",
        ),
    ] = 32

"""`kaa-ext rest`: serves the REST API of the reference services."""

import sys
from pathlib import Path
from typing import Annotated

import uvloop
from cyclopts import Parameter, validators
from kaa_gateway.errors import ConfigError

from kaa_ext.cli.common import Domain, Nats, check_domain, check_instance, servers
from kaa_ext.cli.exits import INTERRUPTED, fail
from kaa_ext.sdk.errors import CannotListen
from kaa_ext.sdk.logs import LogLevel, configure
from kaa_ext.sdk.runner import until_signalled
from kaa_ext.sdk.urls import DEFAULT_NATS_URL

Instance = Annotated[str, Parameter(help="Service instance of this type.")]


def rest(
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=65535))] = 8009,
    token_file: Path | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    management: str | None = None,
    access_log: Annotated[bool, Parameter(negative="")] = False,
    cex: Instance = "cex",
    cmx: Instance = "cmx",
    ecr: Instance = "ecr",
    epmx: Instance = "epmx",
    epmx_repository: str | None = None,
    epts: Instance = "epts",
    auth: Instance = "auth",
    nats: Nats = DEFAULT_NATS_URL,
    jetstream_domain: Domain = None,
    log_level: LogLevel = "info",
) -> None:
    """Serve the REST API.

    Parameters
    ----------
    host
        Address to listen on.
    port
        Port to listen on.
    token_file
        File with the bearer token that requests need. Without it, only requests from this machine are answered.
    tls_cert
        PEM file with the certificate of the server and the intermediate ones. With it, the API is served over TLS only.
    tls_key
        PEM file with the private key of the certificate.
    management
        HOST:PORT, or PORT, for health and Prometheus metrics.
    access_log
        Write a line to the log for each request.
    epmx_repository
        Service instance that has the metadata if epmx does not keep them (its setting `repository`).
    log_level
        debug, info, warning or error.
    """
    urls = servers(nats)
    check_domain(jetstream_domain)
    check_instance(cex, cmx, ecr, epmx, epts, auth, *([epmx_repository] if epmx_repository else []))
    try:
        from kaa_ext.rest.server import RestServer, Settings
        from kaa_ext.rest.services import Instances
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("litestar", "uvicorn"):
            raise
        fail("`rest` needs the extra of this name: pip install 'kaa-gateway[rest]'")
    if (tls_cert is None) != (tls_key is None):
        fail("--tls-cert and --tls-key belong together")
    configure(log_level)
    instances = Instances(
        cex=cex, cmx=cmx, ecr=ecr, epmx=epmx, epmx_repository=epmx_repository, epts=epts, auth=auth
    )
    try:
        settings = Settings(
            host=host,
            port=port,
            token_file=token_file,
            certificate=None if tls_cert is None or tls_key is None else (tls_cert, tls_key),
            management=management,
            access_log=access_log,
        )
        server = RestServer(urls, settings, instances, jetstream_domain)
    except ValueError as error:
        fail(f"--management {error}")
    except OSError as error:
        fail(f"--host {host} --port {port}: {error.strerror}")
    except ConfigError as error:
        fail(error.detail)

    async def start() -> None:
        await server.start()
        print("ready", flush=True)

    try:
        uvloop.run(until_signalled(start, server.stop))
    except CannotListen as error:
        fail(f"--management {error}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)

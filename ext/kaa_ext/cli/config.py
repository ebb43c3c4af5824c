"""`kaa-ext config`: sets and shows the configurations of endpoints (6/CDTP, 7/CMP)."""

import json
import time
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from kaa_ext.cli.common import AppVersion, Domain, Nats, check_instance, json_argument
from kaa_ext.cli.exits import FAILED
from kaa_ext.cli.nats_work import run_with_nats
from kaa_ext.messages import cdtp
from kaa_ext.operations import configurations
from kaa_ext.operations.session import Session
from kaa_ext.sdk.urls import DEFAULT_NATS_URL

app = App(name="config", help="Set, get and check the configurations of endpoints.")

Name = Annotated[str, Parameter(name="--name", help="Name of the configuration (default: the unnamed one).")]
Provider = Annotated[str, Parameter(name="--provider", help="Service instance of the registry.")]


@app.command(name="set")
def set_configuration(
    endpoint: str,
    configuration: str,
    *,
    app_version: AppVersion,
    name: Name = cdtp.DEFAULT_NAME,
    content_type: str = cdtp.JSON,
    provider: Provider = "ecr",
    nats: Nats = DEFAULT_NATS_URL,
    jetstream_domain: Domain = None,
) -> int:
    """Set the configuration of an endpoint. It is pushed at once if the endpoint is connected.

    Example: kaa-ext config set my-device '{"interval": 10}' --app-version demo_application_v1

    Parameters
    ----------
    endpoint
        Endpoint ID. With identity `open` it is the token.
    configuration
        JSON; @FILE reads a file, @- standard input.
    content_type
        Type of a configuration that is not JSON. The device gets text/* as a string, all others in Base64.
    """
    content = json_argument(configuration)
    check_instance(provider)

    async def work(connection: Session) -> int:
        registry = await configurations.registry(connection, provider)
        config_id = (await registry.set(app_version, endpoint, name, content, content_type)).config_id
        print(f"configuration {config_id} is set")
        return 0

    return run_with_nats(nats, jetstream_domain, work)


@app.command(name="get")
def get_configuration(
    endpoint: str,
    *,
    app_version: AppVersion,
    name: Name = cdtp.DEFAULT_NAME,
    provider: Provider = "ecr",
    nats: Nats = DEFAULT_NATS_URL,
    jetstream_domain: Domain = None,
) -> int:
    """Print the configuration of an endpoint. The exit code is 1 if there is none.

    Parameters
    ----------
    endpoint
        Endpoint ID.
    """
    check_instance(provider)

    async def work(connection: Session) -> int:
        registry = await configurations.registry(connection, provider)
        found = await registry.get(app_version, endpoint, name)
        if found is None:
            print(f"{endpoint} has no such configuration")
            return FAILED
        print(msgspec.json.format(bytes(found.content)).decode())
        return 0

    return run_with_nats(nats, jetstream_domain, work)


@app.command(name="status")
def status(
    endpoint: str,
    *,
    app_version: AppVersion,
    provider: Provider = "ecr",
    consumer: Annotated[
        str, Parameter(help="Service instance that gives configurations to devices.")
    ] = "cmx",
    nats: Nats = DEFAULT_NATS_URL,
    jetstream_domain: Domain = None,
) -> int:
    """Print for each configuration of an endpoint its current version, and whether the endpoint has applied it.

    Parameters
    ----------
    endpoint
        Endpoint ID.
    """
    check_instance(provider, consumer)

    async def work(connection: Session) -> int:
        for each in await configurations.status(connection, provider, consumer, app_version, endpoint):
            print(_line(each))
        return 0

    return run_with_nats(nats, jetstream_domain, work)


def _line(status: configurations.Status) -> str:
    current, applied = status.current, status.configured.applied
    if current is None:
        outcome = "none is set"
    elif applied is None or not status.is_applied:
        outcome = f"{current.config_id}  not applied yet"
    elif 200 <= applied.status_code <= 299:
        outcome = f"{current.config_id}  applied {_time(applied.timestamp)}"
    else:
        reason = f" {json.dumps(applied.reason_phrase)}" if applied.reason_phrase else ""
        outcome = f"{current.config_id}  refused {_time(applied.timestamp)}: {applied.status_code}{reason}"
    observes = {True: "  observed", False: "  not observed", None: ""}[status.configured.observe]
    return f"{status.name or '(default)'}  {outcome}{observes}"


def _time(timestamp: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(timestamp / 1000))

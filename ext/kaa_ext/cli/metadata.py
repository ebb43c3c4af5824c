"""`kaa-ext metadata`: shows and changes the metadata of endpoints (10/EPMP)."""

from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from kaa_ext.cli.common import AppVersion, Domain, Nats, check_instance, json_argument
from kaa_ext.cli.exits import fail
from kaa_ext.cli.nats_work import run_with_nats
from kaa_ext.operations import metadata
from kaa_ext.operations.session import Session
from kaa_ext.sdk import payloads
from kaa_ext.sdk.urls import DEFAULT_NATS_URL

app = App(name="metadata", help="Show and change the metadata of endpoints.")

Service = Annotated[str, Parameter(name="--service", help="Service instance that keeps the metadata.")]
Repository = Annotated[
    str | None,
    Parameter(name="--repository", help="Service instance that has the metadata in its place (19/EPMMP)."),
]


@app.command(name="get")
def get_metadata(
    endpoint: str,
    *,
    service: Service = "epmx",
    repository: Repository = None,
    nats: Nats = DEFAULT_NATS_URL,
    jetstream_domain: Domain = None,
) -> int:
    """Print the metadata of an endpoint.

    Parameters
    ----------
    endpoint
        Endpoint ID. With identity `open` it is the token.
    """
    place = _place(service, repository)

    async def work(connection: Session) -> int:
        found = await metadata.get(connection, place, endpoint)
        print(msgspec.json.format(payloads.encode(found)).decode())
        return 0

    return run_with_nats(nats, jetstream_domain, work)


@app.command(name="set")
def set_metadata(
    endpoint: str,
    content: str,
    *,
    app_version: AppVersion,
    service: Service = "epmx",
    repository: Repository = None,
    nats: Nats = DEFAULT_NATS_URL,
    jetstream_domain: Domain = None,
) -> int:
    """Create or change metadata keys of an endpoint. Other keys stay as they are.

    Example: kaa-ext metadata set my-device '{"floor": 3}' --app-version demo_application_v1

    Parameters
    ----------
    endpoint
        Endpoint ID.
    content
        JSON object of keys and values; @FILE reads a file, @- standard input.
    """
    text = json_argument(content)
    place = _place(service, repository)

    async def work(connection: Session) -> int:
        update = metadata.decode(text)
        await metadata.update(connection, place, app_version, endpoint, update)
        return 0

    return run_with_nats(nats, jetstream_domain, work)


@app.command(name="delete")
def delete_metadata(
    endpoint: str,
    *keys: str,
    app_version: AppVersion,
    service: Service = "epmx",
    repository: Repository = None,
    nats: Nats = DEFAULT_NATS_URL,
    jetstream_domain: Domain = None,
) -> int:
    """Delete metadata keys of an endpoint. A missing key is not an error.

    Parameters
    ----------
    endpoint
        Endpoint ID.
    keys
        Names of the keys.
    """
    if not keys:
        fail("no key named")
    place = _place(service, repository)

    async def work(connection: Session) -> int:
        await metadata.delete(connection, place, app_version, endpoint, keys)
        return 0

    return run_with_nats(nats, jetstream_domain, work)


def _place(service: str, repository: str | None) -> metadata.Place:
    check_instance(service, *([] if repository is None else [repository]))
    return metadata.Place(service, repository)

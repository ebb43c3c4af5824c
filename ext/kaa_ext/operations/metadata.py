"""The metadata of endpoints: showing, updating and deleting keys.

They are those that epmx keeps itself, or those of another repository (19/EPMMP), such as Kaa's endpoint register. Every
change is followed by the event of 15/EME. The access settings of epmx are for devices; they do not count here.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple
from uuid import uuid4

import nats.errors
from kaa_gateway.bus import subjects
from kaa_gateway.bus.messages import Exchange
from kaa_gateway.errors import MalformedAvro

from kaa_ext.messages import epmmp
from kaa_ext.operations.errors import Unavailable
from kaa_ext.operations.session import Session
from kaa_ext.sdk import payloads
from kaa_ext.sdk.errors import ExtensionError
from kaa_ext.sdk.targeted import Fields
from kaa_ext.services import epmx

ORIGINATOR = "kaa-ext"
"""The replica that the events name."""
REPOSITORY_TIMEOUT_S = 10.0

decode = payloads.decoder(epmx.Metadata)
"""Returns the metadata in a JSON object. Raises ExtensionError 400 for other content."""


class Place(NamedTuple):
    """Where metadata are: in the service instance `service`, or in the repository instance if one is named."""

    service: str
    repository: str | None = None


async def get(session: Session, place: Place, endpoint_id: str) -> epmx.Metadata:
    """Return the metadata of an endpoint."""
    (found,) = await (await _store(session, place)).read([epmx.Wanted(endpoint_id)])
    if isinstance(found, ExtensionError):
        raise found
    return found


async def update(
    session: Session, place: Place, app_version_name: str, endpoint_id: str, metadata: epmx.Metadata
) -> epmx.Metadata:
    """Create or change keys, and return all metadata.

    Raise ExtensionError 400 for a wrong key, 413 if the metadata become too large.
    """
    epmx.checked_keys(metadata)
    new = {key: epmx.compacted(value) for key, value in metadata.items()}
    return await _change(session, place, app_version_name, endpoint_id, lambda found: {**found, **new})


async def delete(
    session: Session, place: Place, app_version_name: str, endpoint_id: str, keys: Iterable[str]
) -> epmx.Metadata:
    """Delete keys, and return the other metadata. Missing keys are not an error."""
    unwanted = frozenset(keys)

    def remove(found: epmx.Metadata) -> epmx.Metadata:
        return {key: value for key, value in found.items() if key not in unwanted}

    return await _change(session, place, app_version_name, endpoint_id, remove)


async def _change(
    session: Session,
    place: Place,
    app_version_name: str,
    endpoint_id: str,
    change: Callable[[epmx.Metadata], epmx.Metadata],
) -> epmx.Metadata:
    made = epmx.Change(change)
    store = await _store(session, place)
    (error,) = await store.change_all([epmx.Order(endpoint_id, made, app_version_name)])
    if error is not None:
        raise error
    return made.after


async def _store(session: Session, place: Place) -> epmx.Store:
    if place.repository is not None:
        return epmx.RemoteStore(_asking(session, place.repository))
    state = await session.state(place.service, epmx.STATE, epmx.Metadata)
    return epmx.OwnStore(place.service, ORIGINATOR, state, session.publish)


def _asking(session: Session, repository: str) -> epmx.Ask:
    """Return a function that asks a repository instance. It raises Unavailable if there is no answer of 19/EPMMP."""

    async def ask(exchange: Exchange, request: Fields) -> Fields:
        subject = subjects.service(repository, epmmp.PROTOCOL, exchange.request.subject)
        datum = exchange.request.type.encode(
            correlation_id=str(uuid4()), timeout=REPOSITORY_TIMEOUT_S, **request
        )
        try:
            answer = await session.client.request(subject, datum, REPOSITORY_TIMEOUT_S)
            return exchange.answer.type.decode(answer.data)
        except nats.errors.NoRespondersError as error:
            raise Unavailable(f"no replica of {repository} is running") from error
        except nats.errors.TimeoutError as error:
            raise Unavailable(f"{repository} did not answer") from error
        except MalformedAvro as error:
            raise Unavailable(f"{repository} has sent an answer that is none of 19/EPMMP") from error

    return ask

"""The metadata of endpoints that epmx keeps: showing, updating and deleting keys, with the events of 15/EME.

The access settings of epmx are for devices; they do not count here.
"""

from collections.abc import Callable, Iterable

from kaa_ext.operations.session import Session
from kaa_ext.sdk import payloads
from kaa_ext.sdk.state import State
from kaa_ext.services import epmx

ORIGINATOR = "kaa-ext"
"""The replica that the events name."""

decode = payloads.decoder(epmx.Metadata)
"""Returns the metadata in a JSON object. Raises ExtensionError 400 for other content."""


async def get(session: Session, service: str, endpoint_id: str) -> epmx.Metadata:
    """Return the metadata of an endpoint."""
    return await (await _state(session, service)).get(endpoint_id) or {}


async def update(
    session: Session, service: str, app_version_name: str, endpoint_id: str, metadata: epmx.Metadata
) -> epmx.Metadata:
    """Create or change keys, and return all metadata.

    Raise ExtensionError 400 for a wrong key, 413 if the metadata become too large.
    """
    epmx.checked_keys(metadata)
    new = {key: epmx.compacted(value) for key, value in metadata.items()}
    return await _change(session, service, app_version_name, endpoint_id, lambda found: {**found, **new})


async def delete(
    session: Session, service: str, app_version_name: str, endpoint_id: str, keys: Iterable[str]
) -> epmx.Metadata:
    """Delete keys, and return the other metadata. Missing keys are not an error."""
    unwanted = frozenset(keys)

    def remove(found: epmx.Metadata) -> epmx.Metadata:
        return {key: value for key, value in found.items() if key not in unwanted}

    return await _change(session, service, app_version_name, endpoint_id, remove)


async def _change(
    session: Session,
    service: str,
    app_version_name: str,
    endpoint_id: str,
    change: Callable[[epmx.Metadata], epmx.Metadata],
) -> epmx.Metadata:
    store = epmx.OwnStore(service, ORIGINATOR, await _state(session, service), session.publish)
    made = epmx.Change(change)
    await store.change(endpoint_id, made, app_version_name=app_version_name)
    return made.after


async def _state(session: Session, service: str) -> State[epmx.Metadata]:
    return await session.state(service, epmx.STATE, epmx.Metadata)

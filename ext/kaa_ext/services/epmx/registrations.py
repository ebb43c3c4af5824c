"""The application versions of endpoints, which a repository of 19/EPMMP tells other services.

They are those under which endpoints have connected (9/ELCE). The end of an endpoint's registration removes its
application version and its metadata.

State `app-versions`: key (endpoint ID); the value is the name of the application version.

Source: 9/ELCE "Endpoint Lifecycle and Connectivity Events".
"""

from collections.abc import Sequence

from kaa_ext.sdk.connectivity import Connectivity
from kaa_ext.sdk.lifecycle import Lifecycle
from kaa_ext.sdk.state import State
from kaa_ext.services.connections import for_each_endpoint
from kaa_ext.services.epmx.metadata import Change, Metadata
from kaa_ext.services.epmx.store import OwnStore

STATE = "app-versions"


class Registrations:
    """The application versions that an epmx instance knows."""

    def __init__(self, state: State[str], store: OwnStore) -> None:
        self._state = state
        self._store = store

    async def app_versions(self, endpoint_ids: Sequence[str]) -> list[str | None]:
        """Return the application version of each endpoint, or None."""
        return await self._state.get_all([(each,) for each in endpoint_ids])

    async def connectivity(self, event: Connectivity) -> None:
        """Store the application versions of endpoints that have connected."""
        if event.connected:
            await for_each_endpoint(event, self._note)

    async def lifecycle(self, event: Lifecycle) -> None:
        """Store what other services tell of an endpoint, or remove an endpoint that is not registered any more."""
        if event.kind != "unregistered":
            await self._note(event.endpoint_id, event.app_version_name)
            return
        await self._store.change(event.endpoint_id, Change(_nothing), app_version_name=event.app_version_name)
        await self._state.change(event.endpoint_id, change=lambda _: None)

    async def _note(self, endpoint_id: str, app_version_name: str) -> None:
        if await self._state.get(endpoint_id) != app_version_name:
            await self._state.put(endpoint_id, value=app_version_name)


def _nothing(metadata: Metadata) -> Metadata:
    return {}

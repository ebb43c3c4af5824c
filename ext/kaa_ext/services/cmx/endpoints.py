"""The configurations that an endpoint requested, got and applied, as cmx stores them.

State `endpoints`: key (application version, endpoint ID). Times are UNIX times in milliseconds.
"""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import msgspec
from kaa_gateway.bus.messages import now_ms

from kaa_ext.messages import cdtp
from kaa_ext.sdk.errors import ExtensionError
from kaa_ext.sdk.extension import Extension
from kaa_ext.sdk.state import State

STATE = "endpoints"
NAMES_MAX = 64
"""Configurations of an endpoint that are stored."""


class Applied(msgspec.Struct, rename="camel", omit_defaults=True):
    """The report of an endpoint that it has applied a configuration, or could not."""

    config_id: str
    timestamp: int
    status_code: int = 200
    reason_phrase: str | None = None


class Answered(msgspec.Struct, rename="camel"):
    """The configuration of the last answer to an endpoint, the time of its request and the gateway replica."""

    config_id: str
    timestamp: int
    gateway_replica_id: str | None


class Pushed(msgspec.Struct, rename="camel"):
    """The configuration of the last push to an endpoint, and the ID of that push."""

    config_id: str
    push_id: str


class Configured(msgspec.Struct, rename="camel", omit_defaults=True):
    """The state of one configuration of an endpoint."""

    observe: bool | None = None
    applied: Applied | None = None
    answered: Answered | None = None
    pushed: Pushed | None = None

    @property
    def applied_id(self) -> str:
        """The identifier of the configuration that the endpoint has applied."""
        return self.applied.config_id if self.applied else cdtp.ABSENT_ID

    @property
    def answered_id(self) -> str | None:
        """The identifier of the configuration of the last answer."""
        return self.answered.config_id if self.answered else None


EndpointState = dict[str, Configured]
"""By the names of the configurations; the name of the default one is empty."""


class EndpointStore:
    """The state of a cmx instance."""

    def __init__(self, extension: Extension) -> None:
        self._state: State[EndpointState] = extension.state(STATE, EndpointState)

    async def get(self, app_version_name: str, endpoint_id: str) -> EndpointState:
        """Return what is known of an endpoint."""
        return await self._state.get(app_version_name, endpoint_id) or {}

    async def get_all(self, endpoints: Sequence[tuple[str, str]]) -> list[EndpointState]:
        """Return what is known of endpoints, which are named by application version and endpoint ID."""
        return [found or {} for found in await self._state.get_all(endpoints)]

    async def note(self, app_version_name: str, endpoint_id: str, name: str, **changes: Any) -> None:
        """Store changes to the fields of a `Configured`. Raise ExtensionError 429 beyond `NAMES_MAX`."""

        def change(before: EndpointState | None) -> EndpointState:
            return _with(before, name, msgspec.structs.replace(_configured(before, name), **changes))

        await self._state.change(app_version_name, endpoint_id, change=change)

    async def note_present(self, app_version_name: str, endpoint_id: str, name: str, config_id: str) -> None:
        """Store that an endpoint has a configuration, which it named in a request."""

        def change(before: EndpointState | None) -> EndpointState:
            configured = _configured(before, name)
            if config_id != configured.applied_id:
                configured = msgspec.structs.replace(configured, applied=Applied(config_id, now_ms()))
            return _with(before, name, configured)

        await self._state.change(app_version_name, endpoint_id, change=change)

    async def note_push(
        self, app_version_name: str, endpoint_id: str, name: str, config_id: str, *, even_if_answered: bool
    ) -> str | None:
        """Store that a configuration is being pushed, and return the push ID; None if it need not be pushed.

        A configuration that was pushed before keeps its push ID, so that no connection gets it twice.
        """
        push_id: str | None = None

        def change(before: EndpointState | None) -> EndpointState | None:
            nonlocal push_id
            push_id = None
            configured = (before or {}).get(name, Configured())
            if configured.observe is False:
                return before
            if configured.answered_id == config_id and not even_if_answered:
                return before
            if configured.pushed is None or configured.pushed.config_id != config_id:
                configured = msgspec.structs.replace(
                    configured, pushed=Pushed(config_id, str(uuid4())), answered=None
                )
            assert configured.pushed is not None
            push_id = configured.pushed.push_id
            return _with(before, name, configured)

        await self._state.change(app_version_name, endpoint_id, change=change)
        return push_id


def _configured(before: EndpointState | None, name: str) -> Configured:
    found = (before or {}).get(name)
    if found is None and len(before or {}) >= NAMES_MAX:
        raise ExtensionError(429, f"An endpoint has at most {NAMES_MAX} configurations")
    return found or Configured()


def _with(before: EndpointState | None, name: str, configured: Configured) -> EndpointState:
    return {**(before or {}), name: configured}

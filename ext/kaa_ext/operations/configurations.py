"""The configurations of endpoints (6/CDTP, 7/CMP): setting, showing, and what endpoints have applied."""

from typing import NamedTuple

from kaa_ext.messages import cdtp
from kaa_ext.operations.session import Session
from kaa_ext.services import cmx, ecr


class Status(NamedTuple):
    """A configuration by its name: what is set now, and what cmx knows of the endpoint."""

    name: str
    current: ecr.Configuration | None
    configured: cmx.Configured

    @property
    def is_applied(self) -> bool:
        """Return whether the endpoint has reported on the current configuration."""
        applied = self.configured.applied
        return (
            applied is not None and self.current is not None and applied.config_id == self.current.config_id
        )


async def registry(session: Session, provider: str) -> ecr.Registry:
    """Return the registry of a provider instance."""
    state = await session.state(provider, ecr.STATE, ecr.Configuration)
    return ecr.Registry(provider, state, session.publish)


async def status(
    session: Session, provider: str, consumer: str, app_version_name: str, endpoint_id: str
) -> list[Status]:
    """Return the status of each configuration that the endpoint has requested or got, the unnamed one first."""
    found = await registry(session, provider)
    states = await session.state(consumer, cmx.STATE, cmx.EndpointState)
    known = await states.get(app_version_name, endpoint_id) or {}
    return [
        Status(name, await found.get(app_version_name, endpoint_id, name), configured)
        for name, configured in {cdtp.DEFAULT_NAME: cmx.Configured(), **known}.items()
    ]

"""The service instances behind the REST API, and the NATS connection to them."""

import msgspec

from kaa_ext.operations.metadata import Place
from kaa_ext.operations.session import Session
from kaa_ext.rest.connection import Connection


class Instances(msgspec.Struct, frozen=True, kw_only=True):
    """The names of the service instances, by type. `epmx_repository` has the metadata if epmx does not."""

    cex: str = "cex"
    cmx: str = "cmx"
    ecr: str = "ecr"
    epmx: str = "epmx"
    epmx_repository: str | None = None
    epts: str = "epts"
    auth: str = "auth"


class Services:
    """What handlers need: the names of the instances, and NATS."""

    def __init__(self, connection: Connection, instances: Instances) -> None:
        self._connection = connection
        self.instances = instances

    @property
    def is_ready(self) -> bool:
        """Whether NATS is connected."""
        return self._connection.is_connected

    @property
    def metadata(self) -> Place:
        """Where the metadata of endpoints are."""
        return Place(self.instances.epmx, self.instances.epmx_repository)

    @property
    def session(self) -> Session:
        """The session with NATS. Raise Unavailable while NATS is away."""
        return self._connection.session

"""The root of service-config.yml."""

from typing import Annotated

from msgspec import Meta, field

from kaa_gateway.config.keys.applications import Application, ExtensionInstanceKeys
from kaa_gateway.config.keys.bridge import Bridge
from kaa_gateway.config.keys.diagnostics import Log, Tracing
from kaa_gateway.config.keys.durable import Durable
from kaa_gateway.config.keys.events import Events
from kaa_gateway.config.keys.identity import IdentitySettings
from kaa_gateway.config.keys.limits import Limits
from kaa_gateway.config.keys.nats import Nats
from kaa_gateway.config.keys.quotas import QuotaStore
from kaa_gateway.config.keys.service import Server, Service
from kaa_gateway.config.keys.tenants import Tenant
from kaa_gateway.config.keys.transports import Transports
from kaa_gateway.config.schema import Section
from kaa_gateway.config.value_types import Integer, LevelName, Name


class Kpc(Section, frozen=True, kw_only=True):
    """The communication service itself."""

    transports: Transports = Transports()
    bridge: Bridge = Bridge()
    identity: IdentitySettings = IdentitySettings()
    nats: Nats = Nats()
    durable: Durable = Durable()
    limits: Limits = Limits()
    quotas: QuotaStore = QuotaStore()
    events: Events = Events()
    workers: Annotated[Integer, Meta(ge=1, le=256, description="Worker processes.")] = 1
    log: Log = Log()
    tracing: Tracing = Tracing()


class Kaa(Section, frozen=True, kw_only=True):
    """Everything under `kaa`."""

    applications: dict[LevelName, Application] = field(default_factory=dict)
    tenants: dict[LevelName, Tenant] = field(default_factory=dict)
    extension_instances: dict[Name, ExtensionInstanceKeys] = field(default_factory=dict)
    kpc: Kpc = Kpc()


class Document(Section, frozen=True, kw_only=True):
    """The whole of service-config.yml."""

    service: Service = field(default_factory=Service)
    server: Server = Server()
    kaa: Kaa = Kaa()

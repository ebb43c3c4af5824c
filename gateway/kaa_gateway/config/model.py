"""The configuration of one gateway as its parts get it: typed, checked, and with everything derived."""

from msgspec import Struct, field

from kaa_gateway.config.keys import (
    Bridge,
    Durable,
    EndpointQuota,
    Events,
    IdentitySettings,
    Limits,
    Log,
    Nats,
    Quota,
    QuotaStore,
    Server,
    Service,
    TenantCertificates,
    Tracing,
    Transports,
)


class AppVersion(Struct, frozen=True, kw_only=True):
    """An application version and the extension instances that its endpoints may use."""

    name: str
    application: str
    tenant: str | None = None
    allowed: frozenset[str] = frozenset()
    quota: Quota = Quota()
    """Of all its endpoints together."""
    endpoint_quota: EndpointQuota = EndpointQuota()
    """Of each of its endpoints."""


class ExtensionInstance(Struct, frozen=True, kw_only=True):
    """An extension service instance; endpoint-aware ones have the endpoint token in their resource paths."""

    name: str
    endpoint_aware: bool = True
    durable: bool = False
    named_configurations: bool = False


class Config(Struct, frozen=True, kw_only=True):
    """The whole configuration of one gateway; without arguments, the defaults."""

    service: Service = field(default_factory=Service)
    server: Server = Server()
    transports: Transports = Transports()
    bridge: Bridge = Bridge()
    identity: IdentitySettings = IdentitySettings()
    nats: Nats = Nats()
    durable: Durable = Durable()
    limits: Limits = Limits()
    quotas: QuotaStore = QuotaStore()
    events: Events = Events()
    workers: int = 1
    log: Log = Log()
    tracing: Tracing = Tracing()
    app_versions: dict[str, AppVersion] = field(default_factory=dict)
    """By application version name."""
    tenants: dict[str, Quota] = field(default_factory=dict)
    """The quotas of tenants, by ID."""
    certificate_policies: dict[str, TenantCertificates] = field(default_factory=dict)
    """What tenants demand of certificates, by ID."""
    extension_instances: dict[str, ExtensionInstance] = field(default_factory=dict)
    """By name: all that are declared, and all that an application version is allowed to use."""
    warnings: tuple[str, ...] = ()
    """What the operator should know though the gateway starts; one line each, for the log."""

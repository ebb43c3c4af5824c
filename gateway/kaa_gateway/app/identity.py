"""The identity of one worker, built from the configuration: which providers are made from which settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaa_gateway.config import encrypted
from kaa_gateway.identity.authenticator import ClientAuthenticator
from kaa_gateway.identity.certificate_rules import CertificatePolicy, CertificateRules
from kaa_gateway.identity.ecap import EcapProvider
from kaa_gateway.identity.open import OpenProvider
from kaa_gateway.identity.resolver import Resolver
from kaa_gateway.identity.service import IdentityService
from kaa_gateway.identity.service_clients import CapClients, EcapClients
from kaa_gateway.identity.static import StaticClients, StaticProvider

if TYPE_CHECKING:
    from kaa_gateway.bus.control import Control
    from kaa_gateway.config import Config
    from kaa_gateway.identity.client_provider import ClientProvider
    from kaa_gateway.identity.provider import IdentityProvider


def make_identity(
    config: Config, control: Control, replica_id: str, provider: IdentityProvider | None = None
) -> IdentityService:
    """Return the identity service of a configuration; `provider` replaces the configured one of tokens."""
    settings = config.identity
    service = IdentityService(
        control, CertificateRules(_certificate_tenants_of(config), _policies_of(config))
    )
    provider = provider or _make_provider(config, control, replica_id, service)
    service.use_provider(
        provider, Resolver(provider, settings.timeout, concurrent=settings.ecap.requests_in_flight)
    )
    clients = _make_client_provider(config, control, replica_id, service)
    if clients is not None:
        service.use_clients(clients, _make_authenticator(config, clients, service))
    return service


def configure_identity(service: IdentityService, config: Config) -> None:
    """Apply the applications and tenants of another configuration."""
    service.configure(
        _applications_of(config),
        _tenants_of(config),
        config.identity.clients.default_tenant,
        _policies_of(config),
    )


def _make_provider(
    config: Config, control: Control, replica_id: str, service: IdentityService
) -> IdentityProvider:
    settings = config.identity
    if settings.provider == "static":
        assert settings.static.file is not None
        return StaticProvider(settings.static.file)
    if settings.provider == "ecap":
        return EcapProvider(
            control,
            replica_id,
            _applications_of(config),
            service.revoke_tokens,
            service_instance=settings.ecap.service_instance,
            timeout=settings.timeout,
            cache_size=settings.ecap.cache_size,
            cache_ttl=settings.ecap.cache_ttl,
            negative_cache_ttl=settings.ecap.negative_cache_ttl,
            activate_tokens=settings.ecap.activate_tokens,
        )
    return OpenProvider()


def _make_client_provider(
    config: Config, control: Control, replica_id: str, service: IdentityService
) -> ClientProvider | None:
    identity = config.identity
    settings = identity.clients
    if settings.provider == "none":
        return None
    if settings.provider == "static":
        assert identity.static.file is not None
        return StaticClients(identity.static.file)
    if settings.provider == "ecap":
        return EcapClients(
            control, replica_id, settings.service_instance, identity.timeout, service.revoke_credentials
        )
    return CapClients(
        control,
        replica_id,
        settings.service_instance,
        identity.timeout,
        service.revoke_credentials,
        tenants=_tenants_of(config),
        default_tenant=settings.default_tenant,
    )


def _make_authenticator(
    config: Config, provider: ClientProvider, service: IdentityService
) -> ClientAuthenticator:
    settings = config.identity.clients
    return ClientAuthenticator(
        provider,
        {
            "mqtt": config.transports.mqtt.client_authentication,
            "http": config.transports.http.client_authentication,
            "coap": config.transports.coap.dtls.client_authentication,
            "mqtt-sn": config.transports.mqtt_sn.dtls.client_authentication,
            "coaps+tcp": config.transports.coap.tls.client_authentication,
            "coaps+ws": config.transports.coap.websocket.tls.client_authentication,
        },
        service.end_client,
        service.certificate_rules,
        timeout=config.identity.timeout,
        requests_in_flight=settings.requests_in_flight,
        cache_size=settings.cache_size,
        cache_ttl=settings.cache_ttl,
        negative_cache_ttl=settings.negative_cache_ttl,
    )


def _applications_of(config: Config) -> dict[str, str]:
    return {version.name: version.application for version in config.app_versions.values()}


def _tenants_of(config: Config) -> frozenset[str]:
    return frozenset(version.tenant for version in config.app_versions.values() if version.tenant)


def _certificate_tenants_of(config: Config) -> frozenset[str]:
    return frozenset(
        tenant for listener in encrypted(config.transports).values() for tenant in listener.tenants
    )


def _policies_of(config: Config) -> dict[str, CertificatePolicy]:
    return {
        name: CertificatePolicy(
            admits_signed=policy.admit == "signed", binds_token=policy.tokens == "common-name"
        )
        for name, policy in config.certificate_policies.items()
    }

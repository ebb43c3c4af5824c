"""What a client's certificate says about its tenant, and what a tenant demands of certificates.

What lives here: the client of a certificate that nobody is asked about, and the agreement of a certificate with what a
provider says. What does not: verifying certificates and finding their tenants (`kaa_gateway.net`), and asking
(`kaa_gateway.identity.authenticator`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kaa_gateway.errors import IdentityError
from kaa_gateway.identity.clients import ANONYMOUS_CLIENT, Client

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kaa_gateway.wire.certificate import ClientCertificate

CREDENTIALS_OF_OTHER_TENANT = "certificate_of_other_tenant"
"""Reason of the `IdentityError` (status 401) for credentials and a certificate of different tenants."""


class CertificatePolicy(NamedTuple):
    """What a tenant demands of the certificates that its authorities have issued."""

    admits_signed: bool = False
    """Whether the signature is enough, so that the provider of clients is not asked."""
    binds_token: bool = False
    """Whether the common name is the only endpoint token that the client may use."""


class CertificateRules:
    """Applies the policies of tenants, by tenant ID; a tenant without one has the default.

    `tenants` are those that have authorities of their own.
    """

    def __init__(
        self, tenants: frozenset[str] = frozenset(), policies: Mapping[str, CertificatePolicy] | None = None
    ) -> None:
        self.tenants = tenants
        self._policies = policies or {}

    def configure(self, policies: Mapping[str, CertificatePolicy]) -> bool:
        """Replace the policies. Return whether they are others."""
        changed = self._policies != policies
        self._policies = policies
        return changed

    def admits(self, certificate: ClientCertificate) -> bool:
        """Return whether a certificate is enough, without a provider."""
        return certificate.tenant is not None and self._policy(certificate.tenant).admits_signed

    def client_of(self, certificate: ClientCertificate | None) -> Client:
        """Return the client of a certificate without asking anybody; anonymous if no tenant vouches for it.

        The subject is the client's name, so that a renewed certificate is the same client.
        """
        if certificate is None or certificate.tenant is None:
            return ANONYMOUS_CLIENT
        return Client(
            f"certificate:{certificate.tenant}:{certificate.subject}",
            certificate.tenant,
            certificate.common_name,
            self._only_token(certificate),
        )

    def confine(self, client: Client, certificate: ClientCertificate | None) -> Client:
        """Return an admitted client, confined to the tenant of its certificate.

        Raises IdentityError if it belongs to another tenant.
        """
        if certificate is None or certificate.tenant is None:
            return client
        tenant = certificate.tenant
        if client.tenant is None:
            # Its provider knows no tenants, so two tenants' certificates may have one name there.
            client = client._replace(principal=principal_within(client.principal, tenant), tenant=tenant)
        elif client.tenant != tenant:
            raise IdentityError(401, CREDENTIALS_OF_OTHER_TENANT, "The certificate belongs to another tenant")
        return client._replace(only_token=self._only_token(certificate))

    def _only_token(self, certificate: ClientCertificate) -> bytes | None:
        """Return the token that a policy binds a certificate to; an empty one fits none."""
        if certificate.tenant is None or not self._policy(certificate.tenant).binds_token:
            return None
        return (certificate.common_name or "").encode()

    def _policy(self, tenant: str) -> CertificatePolicy:
        return self._policies.get(tenant) or CertificatePolicy()


def principal_within(principal: str, tenant: str) -> str:
    """Return the principal of credentials that are confined to a tenant."""
    return f"{principal} within {tenant}"

"""The authenticator without a provider: every client is admitted."""

from kaa_gateway.identity.certificate_rules import CertificateRules
from kaa_gateway.identity.clients import Client, Presentation


class AdmitAll:
    """Admits every client: as anonymous, or as its tenant's if a tenant's authority has issued its certificate."""

    def __init__(self, rules: CertificateRules) -> None:
        self._rules = rules

    def authenticate(self, presentation: Presentation) -> Client:
        """Return the client. A password that nobody has checked proves nothing."""
        return self._rules.client_of(presentation.certificate)

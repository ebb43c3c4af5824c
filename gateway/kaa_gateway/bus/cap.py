"""22/CAP: the messages by which a gateway has the credentials of clients checked, tenant by tenant.

Source: 22/CAP "Client Authentication Protocol".
"""

from kaa_gateway.bus import subjects
from kaa_gateway.bus.messages import NULLABLE_STRING, OPTIONAL_STRING, Exchange, Kind, MessageType

PROTOCOL = "cap"
"""The protocol's token in the subjects of its targeted messages."""
NAMESPACE = "org.kaaproject.ipc.cap.gen.v1"

CREDENTIAL_KINDS = ("basic", "certificate")

BASIC = Exchange(
    Kind(
        "basic-request",
        MessageType(
            NAMESPACE,
            "ClientBasicAuthenticationRequest",
            tenantId="string",
            username="string",
            password="string",
        ),
    ),
    Kind(
        "basic-response",
        MessageType(
            NAMESPACE,
            "ClientBasicAuthenticationResponse",
            credentialsId=NULLABLE_STRING,
            clientId=NULLABLE_STRING,
            statusCode="int",
            reasonPhrase=OPTIONAL_STRING,
        ),
    ),
)

CERTIFICATE = Exchange(
    Kind(
        "certificate-request",
        MessageType(
            NAMESPACE, "ClientCertificateAuthenticationRequest", issuer="string", serialNumber="string"
        ),
    ),
    Kind(
        "certificate-response",
        MessageType(
            NAMESPACE,
            "ClientCertificateAuthenticationResponse",
            tenantId=NULLABLE_STRING,
            credentialsId=NULLABLE_STRING,
            clientId=NULLABLE_STRING,
            statusCode="int",
            reasonPhrase=OPTIONAL_STRING,
        ),
    ),
)

CREDENTIALS_REVOKED = MessageType(
    NAMESPACE,
    "ClientCredentialsRevokedEvent",
    tenantId="string",
    credentialsId="string",
    originatorReplicaId="string",
)


def credentials_revoked_subject(provider: str, kind: str) -> str:
    """Return the subject of a provider instance's `CREDENTIALS_REVOKED` events for one of `CREDENTIAL_KINDS`."""
    return subjects.event(provider, "client-credentials", kind, "revoked")

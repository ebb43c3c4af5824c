"""16/ECAP: the messages by which a gateway learns the identity of endpoints and clients.

Source: 16/ECAP "Endpoint and Client Authentication Protocol".
"""

from kaa_gateway.bus import subjects
from kaa_gateway.bus.messages import NULLABLE_STRING, OPTIONAL_STRING, Exchange, Kind, MessageType

PROTOCOL = "ecap"
"""The protocol's token in the subjects of its targeted messages."""
NAMESPACE = "org.kaaproject.ipc.ecap.gen.v1"

_CLIENT_RESPONSE = {
    "credentialId": NULLABLE_STRING,
    "clientId": NULLABLE_STRING,
    "statusCode": "int",
    "reasonPhrase": OPTIONAL_STRING,
}

TOKEN_VALIDATION = Exchange(
    Kind(
        "ep-token-request",
        MessageType(NAMESPACE, "EndpointTokenValidationRequest", appName="string", token="string"),
    ),
    Kind(
        "ep-token-response",
        MessageType(
            NAMESPACE,
            "EndpointTokenValidationResponse",
            tokenId=NULLABLE_STRING,
            endpointId=NULLABLE_STRING,
            statusCode="int",
            reasonPhrase=OPTIONAL_STRING,
        ),
    ),
)

TOKEN_TRANSITION = Exchange(
    Kind(
        "ep-token-status-transition-request",
        MessageType(
            NAMESPACE,
            "EndpointTokenStatusTransitionRequest",
            appName="string",
            token="string",
            targetStatus="string",
        ),
    ),
    Kind(
        "ep-token-status-transition-response",
        MessageType(
            NAMESPACE, "EndpointTokenStatusTransitionResponse", statusCode="int", reasonPhrase=OPTIONAL_STRING
        ),
    ),
)

CLIENT_PASSWORD = Exchange(
    Kind(
        "client-username-password-request",
        MessageType(
            NAMESPACE,
            "ClientUsernamePasswordValidationRequest",
            username=NULLABLE_STRING,
            password=NULLABLE_STRING,
        ),
    ),
    Kind(
        "client-username-password-response",
        MessageType(NAMESPACE, "ClientUsernamePasswordValidationResponse", **_CLIENT_RESPONSE),
    ),
)

CLIENT_CERTIFICATE = Exchange(
    Kind(
        "client-certificate-request",
        MessageType(NAMESPACE, "ClientCertificateValidationRequest", issuer="string", serialNumber="string"),
    ),
    Kind(
        "client-certificate-response",
        MessageType(NAMESPACE, "ClientCertificateValidationResponse", **_CLIENT_RESPONSE),
    ),
)

TOKEN_REVOKED = MessageType(
    NAMESPACE,
    "EndpointTokenRevokedEvent",
    appName="string",
    endpointId="string",
    tokenIds={"type": "array", "items": "string"},
    originatorReplicaId="string",
)

CREDENTIAL_REVOKED = MessageType(
    NAMESPACE, "ClientCredentialRevokedEvent", credentialId="string", originatorReplicaId="string"
)


def token_revoked_subject(provider: str) -> str:
    """Return the subject of a provider instance's `TOKEN_REVOKED` events."""
    return subjects.event(provider, "endpoint", "token", "revoked")


def credential_revoked_subject(provider: str) -> str:
    """Return the subject of a provider instance's `CREDENTIAL_REVOKED` events."""
    return subjects.event(provider, "client", "credential", "revoked")

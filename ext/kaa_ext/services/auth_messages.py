"""The messages of 16/ECAP and 22/CAP as an authentication provider takes and sends them.

Source: 16/ECAP "Endpoint and Client Authentication Protocol"; 22/CAP "Client Authentication Protocol".
"""

from typing import NamedTuple

from kaa_ext.sdk.ism import INT, OPTIONAL_STRING, STRING, MessageType

ECAP = "ecap.gen.v1"
CAP = "cap.gen.v1"

NAMED = ["string", "null"]
"""A string that must be given, if only as null."""


class Exchange(NamedTuple):
    """A request, by the last tokens of its subject, and its answer."""

    subject: str
    request: MessageType
    answer: MessageType


_STATUS = {"statusCode": INT, "reasonPhrase": OPTIONAL_STRING}
_ECAP_CLIENT = {"credentialId": NAMED, "clientId": NAMED, **_STATUS}

TOKEN_VALIDATION = Exchange(
    "ecap.ep-token-request",
    MessageType(ECAP, "EndpointTokenValidationRequest", appName=STRING, token=STRING),
    MessageType(ECAP, "EndpointTokenValidationResponse", tokenId=NAMED, endpointId=NAMED, **_STATUS),
)
TOKEN_TRANSITION = Exchange(
    "ecap.ep-token-status-transition-request",
    MessageType(
        ECAP, "EndpointTokenStatusTransitionRequest", appName=STRING, token=STRING, targetStatus=STRING
    ),
    MessageType(ECAP, "EndpointTokenStatusTransitionResponse", **_STATUS),
)
ECAP_PASSWORD = Exchange(
    "ecap.client-username-password-request",
    MessageType(ECAP, "ClientUsernamePasswordValidationRequest", username=NAMED, password=NAMED),
    MessageType(ECAP, "ClientUsernamePasswordValidationResponse", **_ECAP_CLIENT),
)
ECAP_CERTIFICATE = Exchange(
    "ecap.client-certificate-request",
    MessageType(ECAP, "ClientCertificateValidationRequest", issuer=STRING, serialNumber=STRING),
    MessageType(ECAP, "ClientCertificateValidationResponse", **_ECAP_CLIENT),
)
CAP_BASIC = Exchange(
    "cap.basic-request",
    MessageType(CAP, "ClientBasicAuthenticationRequest", tenantId=STRING, username=STRING, password=STRING),
    MessageType(CAP, "ClientBasicAuthenticationResponse", credentialsId=NAMED, clientId=NAMED, **_STATUS),
)
CAP_CERTIFICATE = Exchange(
    "cap.certificate-request",
    MessageType(CAP, "ClientCertificateAuthenticationRequest", issuer=STRING, serialNumber=STRING),
    MessageType(
        CAP,
        "ClientCertificateAuthenticationResponse",
        tenantId=NAMED,
        credentialsId=NAMED,
        clientId=NAMED,
        **_STATUS,
    ),
)

TOKEN_REVOKED = MessageType(
    ECAP,
    "EndpointTokenRevokedEvent",
    appName=STRING,
    endpointId=STRING,
    tokenIds={"type": "array", "items": STRING},
    originatorReplicaId=STRING,
)
ECAP_CREDENTIAL_REVOKED = MessageType(
    ECAP, "ClientCredentialRevokedEvent", credentialId=STRING, originatorReplicaId=STRING
)
CAP_CREDENTIALS_REVOKED = MessageType(
    CAP, "ClientCredentialsRevokedEvent", tenantId=STRING, credentialsId=STRING, originatorReplicaId=STRING
)

"""The messages of 16/ECAP, 22/CAP and 21/TLE that the gateway sends and takes, with their names in NATS subjects.

Source: 16/ECAP "Endpoint and Client Authentication Protocol"; 22/CAP "Client Authentication Protocol"; 21/TLE "Tenant
Lifecycle Events".
"""

from kaa_gateway.bus.messages import NULLABLE_STRING, OPTIONAL_STRING, Exchange, Kind, MessageType

ECAP = "org.kaaproject.ipc.ecap.gen.v1"
CAP = "org.kaaproject.ipc.cap.gen.v1"
TENANT_LIFECYCLE = "org.kaaproject.ipc.event.gen.v1.tenant.lifecycle"


# 16/ECAP, endpoints

TOKEN_VALIDATION = Exchange(
    Kind(
        "ep-token-request",
        MessageType(ECAP, "EndpointTokenValidationRequest", appName="string", token="string"),
    ),
    Kind(
        "ep-token-response",
        MessageType(
            ECAP,
            "EndpointTokenValidationResponse",
            tokenId=OPTIONAL_STRING,
            endpointId=OPTIONAL_STRING,
            statusCode="int",
            reasonPhrase=NULLABLE_STRING,
        ),
    ),
)

TOKEN_TRANSITION = Exchange(
    Kind(
        "ep-token-status-transition-request",
        MessageType(
            ECAP,
            "EndpointTokenStatusTransitionRequest",
            appName="string",
            token="string",
            targetStatus="string",
        ),
    ),
    Kind(
        "ep-token-status-transition-response",
        MessageType(
            ECAP, "EndpointTokenStatusTransitionResponse", statusCode="int", reasonPhrase=NULLABLE_STRING
        ),
    ),
)

TOKEN_REVOKED = MessageType(
    ECAP,
    "EndpointTokenRevokedEvent",
    appName="string",
    endpointId="string",
    tokenIds={"type": "array", "items": "string"},
    originatorReplicaId="string",
)

# 16/ECAP, clients

ECAP_PASSWORD = Exchange(
    Kind(
        "client-username-password-request",
        MessageType(
            ECAP,
            "ClientUsernamePasswordValidationRequest",
            username=OPTIONAL_STRING,
            password=OPTIONAL_STRING,
        ),
    ),
    Kind(
        "client-username-password-response",
        MessageType(
            ECAP,
            "ClientUsernamePasswordValidationResponse",
            credentialId=OPTIONAL_STRING,
            clientId=OPTIONAL_STRING,
            statusCode="int",
            reasonPhrase=NULLABLE_STRING,
        ),
    ),
)

ECAP_CERTIFICATE = Exchange(
    Kind(
        "client-certificate-request",
        MessageType(ECAP, "ClientCertificateValidationRequest", issuer="string", serialNumber="string"),
    ),
    Kind(
        "client-certificate-response",
        MessageType(
            ECAP,
            "ClientCertificateValidationResponse",
            credentialId=OPTIONAL_STRING,
            clientId=OPTIONAL_STRING,
            statusCode="int",
            reasonPhrase=NULLABLE_STRING,
        ),
    ),
)

ECAP_CREDENTIAL_REVOKED = MessageType(
    ECAP, "ClientCredentialRevokedEvent", credentialId="string", originatorReplicaId="string"
)

# 22/CAP

CAP_BASIC = Exchange(
    Kind(
        "basic-request",
        MessageType(
            CAP,
            "ClientBasicAuthenticationRequest",
            tenantId="string",
            username="string",
            password="string",
        ),
    ),
    Kind(
        "basic-response",
        MessageType(
            CAP,
            "ClientBasicAuthenticationResponse",
            credentialsId=OPTIONAL_STRING,
            clientId=OPTIONAL_STRING,
            statusCode="int",
            reasonPhrase=NULLABLE_STRING,
        ),
    ),
)

CAP_CERTIFICATE = Exchange(
    Kind(
        "certificate-request",
        MessageType(CAP, "ClientCertificateAuthenticationRequest", issuer="string", serialNumber="string"),
    ),
    Kind(
        "certificate-response",
        MessageType(
            CAP,
            "ClientCertificateAuthenticationResponse",
            tenantId=OPTIONAL_STRING,
            credentialsId=OPTIONAL_STRING,
            clientId=OPTIONAL_STRING,
            statusCode="int",
            reasonPhrase=NULLABLE_STRING,
        ),
    ),
)

CAP_CREDENTIALS_REVOKED = MessageType(
    CAP,
    "ClientCredentialsRevokedEvent",
    tenantId="string",
    credentialsId="string",
    originatorReplicaId="string",
)

# 21/TLE

TENANT_UNREGISTERED = MessageType(
    TENANT_LIFECYCLE, "UnregisteredEvent", tenantId="string", originatorReplicaId="string"
)

"""The events that tell gateways that a token or a client is no longer valid.

Source: 16/ECAP, endpoint token revocation event, client credential revocation event; 22/CAP, client credentials
revocation event.
"""

from kaa_gateway.bus import cap, ecap

from kaa_ext.services.auth.credentials import CERTIFICATES, ClientCredentials, Credential, Key, Token


def revocation_event(
    instance: str, replica_id: str, state: str, key: Key, revoked: Credential
) -> tuple[str, bytes]:
    """Return the subject and the datum of the event for a credential that was stored in `state` under `key`."""
    if isinstance(revoked, Token):
        return ecap.token_revoked_subject(instance), ecap.TOKEN_REVOKED.encode(
            appName=key[0],
            endpointId=revoked.endpoint_id,
            tokenIds=[revoked.token_id],
            originatorReplicaId=replica_id,
        )
    if isinstance(revoked, ClientCredentials) and revoked.tenant:
        kind = "certificate" if state == CERTIFICATES else "basic"
        return cap.credentials_revoked_subject(instance, kind), cap.CREDENTIALS_REVOKED.encode(
            tenantId=revoked.tenant, credentialsId=revoked.id, originatorReplicaId=replica_id
        )
    return ecap.credential_revoked_subject(instance), ecap.CREDENTIAL_REVOKED.encode(
        credentialId=revoked.id, originatorReplicaId=replica_id
    )

"""auth, a provider of 16/ECAP and 22/CAP: endpoint tokens and clients, kept in JetStream.

`provider` answers gateways, `registry` holds and changes what there is, `expiry` ends what expires, `revocation` makes
the events for gateways, `credentials` is the stored data.

Source: 16/ECAP "Endpoint and Client Authentication Protocol"; 22/CAP "Client Authentication Protocol".
"""

from kaa_ext.services.auth.provider import register

__all__ = ["register"]

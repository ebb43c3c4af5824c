"""A NATS operator with one account, for a real nats-server that admits users by JWT, as NGS and nsc set it up."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kaa_gateway.bus.credentials import USER_PREFIX

from tests.support.links import encode_nkey, encode_seed, write_creds

OPERATOR_PREFIX = 14 << 3
ACCOUNT_PREFIX = 0


class Operator:
    """An operator, who signs an account, which signs users."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self._account = Ed25519PrivateKey.generate()

    def server_config(self) -> str:
        """Return the configuration of a server that admits the account's users and no one else."""
        limits = dict.fromkeys(("subs", "conn", "leaf", "imports", "exports", "data", "payload"), -1)
        operator = _jwt(self._key, OPERATOR_PREFIX, self._key, OPERATOR_PREFIX, {"type": "operator"})
        account = _jwt(
            self._key,
            OPERATOR_PREFIX,
            self._account,
            ACCOUNT_PREFIX,
            {"type": "account", "limits": limits | {"wildcards": True}},
        )
        name = _name(self._account, ACCOUNT_PREFIX)
        return f"operator: {operator}\nresolver: MEMORY\nresolver_preload: {{ {name}: {account} }}\n"

    def write_user(self, path: Path) -> Path:
        """Write the credentials of a new user, and return the path."""
        user = Ed25519PrivateKey.generate()
        claims = {"type": "user", "subs": -1, "data": -1, "payload": -1}
        jwt = _jwt(self._account, ACCOUNT_PREFIX, user, USER_PREFIX, claims)
        return write_creds(path, jwt, encode_seed(user, USER_PREFIX))


def _jwt(
    issuer: Ed25519PrivateKey,
    issuer_prefix: int,
    subject: Ed25519PrivateKey,
    subject_prefix: int,
    claims: dict[str, Any],
) -> str:
    body: dict[str, Any] = {
        "iat": 1_700_000_000,
        "iss": _name(issuer, issuer_prefix),
        "name": "test",
        "sub": _name(subject, subject_prefix),
        "nats": claims | {"version": 2},
    }
    digest = hashlib.new("sha512_256", json.dumps(body).encode()).digest()
    body["jti"] = base64.b32encode(digest).rstrip(b"=").decode()
    head = _base64(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
    signed = f"{head}.{_base64(json.dumps(body).encode())}"
    return f"{signed}.{_base64(issuer.sign(signed.encode()))}"


def _name(key: Ed25519PrivateKey, prefix: int) -> str:
    """Return the public key as nkeys writes it."""
    return encode_nkey(bytes([prefix]) + key.public_key().public_bytes_raw())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

"""The OpenSSL context of DTLS 1.2: cookies, certificates and pre-shared keys.

What lives here: OpenSSL's settings and callbacks. What does not: datagrams and sessions (dtls.pyx), and the files of
certificates and keys.

pyOpenSSL has no call for pre-shared keys, so their callback is set through its private binding. A version without that
binding is refused with a ConfigError. OpenSSL hands an identity to the callback only up to its first zero byte, and
says nothing about it when a session is resumed; so the whole one is read from the client's message (dtls.pyx), and
remembered for the session.

Source: RFC 6347 (DTLS 1.2), RFC 4279 (pre-shared keys), RFC 7252 section 9.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from kaa_gateway.net.certificates import Material, unusable
from kaa_gateway.net.handshakes import other_reason, verification_reason
from kaa_gateway.net.tenant_authorities import TenantAuthorities

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cryptography import x509

    from kaa_gateway.net.certificates import FileContents

DATAGRAM_SIZE = 1200
"""Bytes of UDP payload that every path carries (RFC 8085 section 3.2 with room for IPv6)."""

RSA_KEY_SIZE_MIN = 2048
EC_KEY_SIZE_MIN = 224
"""Bits that the key of a client's certificate must have."""

DTLS_1_2 = 0xFEFD
NO_RENEGOTIATION = 0x40000000
"""SSL_OP_NO_RENEGOTIATION, for which not every pyOpenSSL has a name."""

RESUMABLE_FOR = 86_400
"""Seconds for which a session can be resumed (RFC 5246 section F.1.4)."""
RESUMABLE_MAX = 20_480
"""Sessions that can be resumed: as many as OpenSSL keeps."""

_COOKIE_SECRET = secrets.token_bytes(32)
_VERIFY_FLAGS = {
    "off": SSL.VERIFY_NONE,
    "optional": SSL.VERIFY_PEER,
    "required": SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
}


class DtlsContext:
    """The settings of a listener with DTLS, from which its connections are made.

    `section` names the listener in the configuration, for error messages. `client_certificate` is `off`, `optional` or
    `required`. `psk_keys` are the keys by identity, or None for a listener without pre-shared keys. Raises ConfigError.

    What the callbacks find out is left in `psk_identity` and `refusal`, and holds for the last call into OpenSSL.
    """

    def __init__(
        self,
        section: str,
        material: Material,
        *,
        ciphers: str,
        client_certificate: str,
        psk_keys: Mapping[bytes, bytes] | None,
    ) -> None:
        self.psk_identity: str | None = None
        """The identity in the handshake, if its key is known."""
        self.refusal: tuple[str, str] | None = None
        """The reason code and a sentence, if a callback has refused the client."""
        self.sent_identity = b""
        """The identity that the client has sent in the handshake that goes on now."""
        self._keys = psk_keys or {}
        self._identities: OrderedDict[bytes, str] = OrderedDict()
        """Identities of the sessions with a pre-shared key that can be resumed, by a hash of their secrets."""
        self._section = section
        self._ciphers = ciphers
        self._client_certificate = client_certificate
        self._callback: object = None
        self._context = self._new_context(section, material, [material, *material.tenants.values()])
        self._authorities: TenantAuthorities | None = None
        self._tenant_of: dict[SSL.Context, str] = {}
        """The tenants of contexts that server names choose."""
        if material.tenants:
            self._serve_tenants(section, material, self._context)
        if psk_keys is not None:
            self._callback = _set_psk_callback(f"{section}.psk-file", self._context, self._find_key)

    def connection(self, address: bytes) -> SSL.Connection:
        """Return a server's connection that works on memory. Its cookies are bound to the address."""
        connection = SSL.Connection(self._context, None)
        connection.set_accept_state()
        connection.set_ciphertext_mtu(DATAGRAM_SIZE)
        connection.set_app_data(address)
        return connection

    def begin(self, sent_identity: bytes) -> None:
        """Forget what the callbacks have found out before. `sent_identity` is what the client has sent, or empty."""
        self.psk_identity = self.refusal = None
        self.sent_identity = sent_identity

    def identity_of(self, connection: SSL.Connection, found: str | None) -> str | None:
        """Return the identity of the pre-shared key of a connection whose handshake has succeeded, or None.

        `found` is what its handshake has found out. For a resumed session that is nothing: its identity is that of the
        handshake in which it began.
        """
        secret = connection.master_key()
        if secret is None:
            return found
        digest = hashlib.sha256(secret).digest()
        if found is not None:
            self._identities[digest] = found
            if len(self._identities) > RESUMABLE_MAX:
                self._identities.popitem(last=False)
        return self._identities.get(digest)

    def tenant_of(self, connection: SSL.Connection, leaf: bytes) -> str | None:
        """Return the tenant of the client's certificate after the handshake, or None. Raises HandshakeError."""
        if self._authorities is None:
            return None
        verified = connection.get_verified_chain(as_cryptography=True)
        chain = None if verified is None else [each.public_bytes(Encoding.DER) for each in verified]
        return self._authorities.tenant_of(leaf, chain, self._tenant_of.get(connection.get_context()))

    def _new_context(self, key: str, own: FileContents, clients: Iterable[FileContents]) -> SSL.Context:
        """Make a context with the certificate of `own`, which verifies clients by the authorities of `clients`."""
        context = SSL.Context(SSL.DTLS_SERVER_METHOD)
        context.set_min_proto_version(DTLS_1_2)
        context.set_options(NO_RENEGOTIATION | SSL.OP_NO_TICKET | SSL.OP_NO_QUERY_MTU)
        # Sessions of other files cannot be resumed: each context has a cache of its own.
        context.set_session_cache_mode(SSL.SESS_CACHE_SERVER)
        context.set_session_id(b"kaa-gateway")
        context.set_timeout(RESUMABLE_FOR)
        context.set_cookie_generate_callback(_cookie)
        context.set_cookie_verify_callback(lambda conn, cookie: hmac.compare_digest(cookie, _cookie(conn)))
        try:
            context.set_cipher_list(self._ciphers.encode())
        except SSL.Error:
            message = "no cipher suite that can be had is in this list"
            raise unusable(f"{self._section}.ciphers", message) from None
        try:
            _use(context, own, clients)
        except SSL.Error as error:
            raise unusable(f"{key}.cert-file", f"cannot be used: {said(error)}") from None
        context.set_verify(_VERIFY_FLAGS[self._client_certificate], self._on_verify)
        return context

    def _serve_tenants(self, section: str, material: Material, context: SSL.Context) -> None:
        """Let a context choose another one for the server names of a tenant."""
        self._authorities = authorities = TenantAuthorities(material)
        by_tenant = {}
        for name, tenant in material.tenants.items():
            if tenant.server_names:
                own = tenant if tenant.chain else material
                its = by_tenant[name] = self._new_context(f"{section}.tenants.{name}", own, [tenant])
                self._tenant_of[its] = name
        for each in (context, *by_tenant.values()):
            store = each.get_cert_store()
            assert store is not None
            store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)

        def choose(connection: SSL.Connection) -> None:
            chosen = by_tenant.get(
                authorities.named((connection.get_servername() or b"").decode("latin-1")) or ""
            )
            if chosen is not None:
                connection.set_context(chosen)

        context.set_tlsext_servername_callback(choose)

    def _on_verify(
        self, connection: object, certificate: crypto.X509, error: int, depth: int, good: int
    ) -> bool:
        if not good:
            text = SSL._ffi.string(SSL._lib.X509_verify_cert_error_string(error)).decode()  # type: ignore[attr-defined]
            self.refusal = (verification_reason(error), text)
        elif _is_weak(certificate.to_cryptography()):
            # The security level is lowered for suites with short tags; it would let these through.
            self.refusal = ("tls_certificate_rejected", "weak key or signature")
        return self.refusal is None

    def _find_key(self, identity: bytes) -> bytes | None:
        """Return the key of an identity, of which OpenSSL knows what stands before the first zero byte."""
        if self.sent_identity.partition(b"\0")[0] == identity:
            identity = self.sent_identity
        key = self._keys.get(identity)
        if key is None:
            self.refusal = ("dtls_unknown_psk_identity", "unknown identity of a pre-shared key")
        else:
            self.psk_identity = shown_identity(identity)
        return key


def _use(context: SSL.Context, own: FileContents, clients: Iterable[FileContents]) -> None:
    """Give OpenSSL a certificate with its key, and the authorities and revocation lists of clients."""
    if own.chain and own.private_key is not None:
        context.use_certificate(own.chain[0])
        for certificate in own.chain[1:]:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(own.private_key)  # type: ignore[arg-type]
    store = context.get_cert_store()
    assert store is not None
    for each in clients:
        for authority in each.authorities:
            store.add_cert(crypto.X509.from_cryptography(authority))
            context.add_client_ca(authority)
        for revocations in each.revocations:
            store.add_crl(revocations)
        if each.revocations:
            store.set_flags(crypto.X509StoreFlags.CRL_CHECK)


def failure(context: DtlsContext, error: SSL.Error) -> tuple[str, str]:
    """Return the reason code of a failed handshake and a sentence for the log."""
    return context.refusal or (other_reason(said(error)), said(error))


def shown_identity(identity: bytes) -> str:
    """Return an identity as text; one that is none in hexadecimal."""
    try:
        text = identity.decode()
    except UnicodeDecodeError:
        text = ""
    return text if text.isprintable() and text else f"hex:{identity.hex()}"


def said(error: SSL.Error) -> str:
    """Return what OpenSSL says of an error."""
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return str(reasons[-1][2]) if reasons else "handshake failed"


def _is_weak(certificate: x509.Certificate) -> bool:
    """Return whether OpenSSL's security level 2 would refuse a certificate. A root's own signature does not count."""
    try:
        public_key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return True
    if isinstance(public_key, rsa.RSAPublicKey) and public_key.key_size < RSA_KEY_SIZE_MIN:
        return True
    if isinstance(public_key, ec.EllipticCurvePublicKey) and public_key.key_size < EC_KEY_SIZE_MIN:
        return True
    is_anchor = certificate.issuer == certificate.subject
    return not is_anchor and isinstance(certificate.signature_hash_algorithm, hashes.SHA1 | hashes.MD5)


def _cookie(connection: SSL.Connection) -> bytes:
    """Return the cookie of an address, which a client returns before anything is kept for it (RFC 6347 4.2.1)."""
    return hmac.digest(_COOKIE_SECRET, connection.get_app_data(), hashlib.sha256)


def _set_psk_callback(key: str, context: SSL.Context, find: Any) -> object:
    """Let OpenSSL call `find` for the key of an identity. The result must be kept as long as the context."""
    lib, ffi = getattr(SSL, "_lib", None), getattr(SSL, "_ffi", None)
    native = getattr(context, "_context", None)
    setter = getattr(lib, "SSL_CTX_set_psk_server_callback", None)
    if ffi is None or native is None or setter is None or not getattr(lib, "Cryptography_HAS_PSK", False):
        raise unusable(key, "the installed versions of pyOpenSSL and cryptography cannot do pre-shared keys")

    def callback(_: object, identity: Any, target: Any, room: int) -> int:
        found = None if identity == ffi.NULL else find(ffi.string(identity))
        if found is None or len(found) > room:
            return 0
        ffi.memmove(target, found, len(found))
        return len(found)

    native_callback = ffi.callback(
        "unsigned int(SSL *, const char *, unsigned char *, unsigned int)", callback, error=0
    )
    setter(native, native_callback)
    return native_callback

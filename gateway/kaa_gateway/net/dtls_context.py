"""The OpenSSL context of CoAP over DTLS 1.2: cookies, certificates, pre-shared keys.

What lives here: all that concerns OpenSSL's settings and callbacks, and the file of pre-shared keys. What does not:
datagrams and sessions (dtls.pyx).

pyOpenSSL has no call for pre-shared keys, so that callback is set through its binding, which is private: PskUnavailable
is what a version without it leads to, at start.

Source: RFC 6347 (DTLS 1.2), RFC 4279 (pre-shared keys), RFC 7252 section 9.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL, crypto

from kaa_gateway.config.yaml_tree import Mapping, Scalar, parse
from kaa_gateway.net.certificates import Material, read, unusable
from kaa_gateway.net.handshakes import other_reason, verification_reason

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography import x509

    from kaa_gateway.config.keys import CoapDtls

DATAGRAM_SIZE = 1200
"""Bytes of UDP payload that every path carries (RFC 8085 section 3.2 with room for IPv6)."""

KEY = re.compile(r"([0-9a-fA-F]{2}){16,64}\Z")
"""A pre-shared key: 16 to 64 bytes in hexadecimal."""

IDENTITY = re.compile(r"[^\x00-\x1f\x7f]{1,128}\Z")

RSA_KEY_SIZE_MIN = 2048
"""Bits that a certificate's key must have."""
EC_KEY_SIZE_MIN = 224

DTLS_1_2 = 0xFEFD
NO_RENEGOTIATION = 0x40000000
"""SSL_OP_NO_RENEGOTIATION, which pyOpenSSL does not name in each version."""

_COOKIE_SECRET = secrets.token_bytes(32)
_SECURITY_FLAGS = {
    "off": SSL.VERIFY_NONE,
    "optional": SSL.VERIFY_PEER,
    "required": SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
}


class DtlsContext:
    """Makes connections; all that its callbacks learn is of the call into OpenSSL that is under way."""

    def __init__(self, key: str, settings: CoapDtls, material: Material) -> None:
        self.psk_identity: str | None = None
        """That of the handshake, if its key is known."""
        self.refusal: tuple[str, str] | None = None
        """Reason code and sentence, if a callback has refused the client."""
        self._keys = {} if settings.psk_file is None else read_keys(f"{key}.psk-file", settings.psk_file)
        self._context = SSL.Context(SSL.DTLS_SERVER_METHOD)
        self._context.set_min_proto_version(DTLS_1_2)
        self._context.set_options(NO_RENEGOTIATION | SSL.OP_NO_TICKET | SSL.OP_NO_QUERY_MTU)
        # A resumed session would not say whose it is.
        self._context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        self._context.set_cookie_generate_callback(_cookie)
        self._context.set_cookie_verify_callback(
            lambda conn, cookie: hmac.compare_digest(cookie, _cookie(conn))
        )
        try:
            self._context.set_cipher_list(settings.ciphers.encode())
        except SSL.Error:
            raise unusable(f"{key}.ciphers", "no cipher suite that can be had is in this list") from None
        try:
            self._use(material)
        except SSL.Error as error:
            raise unusable(f"{key}.cert-file", f"cannot be used: {said(error)}") from None
        self._context.set_verify(_SECURITY_FLAGS[settings.client_certificate], self._on_verify)
        if settings.psk_file is not None:
            self._callback = _set_psk_callback(f"{key}.psk-file", self._context, self._find_key)

    def connection(self, address: bytes) -> SSL.Connection:
        """A server's end of a connection that works on memory; its cookies are bound to the address."""
        connection = SSL.Connection(self._context, None)
        connection.set_accept_state()
        connection.set_ciphertext_mtu(DATAGRAM_SIZE)
        connection.set_app_data(address)
        return connection

    def begin(self) -> None:
        """Forget what the last call into OpenSSL has found."""
        self.psk_identity = self.refusal = None

    def _use(self, material: Material) -> None:
        if material.chain and material.private_key is not None:
            self._context.use_certificate(material.chain[0])
            for certificate in material.chain[1:]:
                self._context.add_extra_chain_cert(certificate)
            self._context.use_privatekey(material.private_key)  # type: ignore[arg-type]
        store = self._context.get_cert_store()
        assert store is not None
        for authority in material.authorities:
            store.add_cert(crypto.X509.from_cryptography(authority))
            self._context.add_client_ca(authority)
        for revocations in material.revocations:
            store.add_crl(revocations)
        if material.revocations:
            store.set_flags(crypto.X509StoreFlags.CRL_CHECK)

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
        key = self._keys.get(identity)
        if key is None:
            self.refusal = ("dtls_unknown_psk_identity", "unknown identity of a pre-shared key")
        else:
            self.psk_identity = identity.decode()
        return key


def failure(context: DtlsContext, error: SSL.Error) -> tuple[str, str]:
    """The reason code of a failed handshake, and what is known of it, for the log."""
    return context.refusal or (other_reason(said(error)), said(error))


def said(error: SSL.Error) -> str:
    """What OpenSSL says of an error."""
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return str(reasons[-1][2]) if reasons else "handshake failed"


def read_keys(key: str, path: Path) -> dict[bytes, bytes]:
    """The pre-shared keys of a file, by identity. Raises ConfigError; no key is ever shown."""
    try:
        text = read(key, path).decode()
    except UnicodeDecodeError:
        raise unusable(key, f"{path}: cannot be read: not UTF-8 text") from None
    problems: list[str] = []

    def report(line: int | None, names: tuple[str, ...], message: str) -> None:
        problems.append(f"{path}:{line}: {message}")

    document = parse(text, report)
    root = document.entries if isinstance(document, Mapping) else []
    if not problems and ([entry.key for entry in root] != ["keys"] or not isinstance(root[0].value, Mapping)):
        report(1, (), "expected one mapping, keys")
    keys: dict[bytes, bytes] = {}
    entries = root[0].value.entries if root and isinstance(root[0].value, Mapping) else []
    for entry in entries:
        value = entry.value.text if isinstance(entry.value, Scalar) else None
        if not IDENTITY.match(entry.key) or len(entry.key.encode()) > 128:
            report(entry.line, (), "expected an identity of 1 to 128 printable characters")
        elif value is None or not KEY.match(value):
            report(entry.line, (), "expected a key of 16 to 64 bytes in hexadecimal")
        else:
            keys[entry.key.encode()] = bytes.fromhex(value)
    if problems:
        raise unusable(key, problems[0])
    return keys


def _is_weak(certificate: x509.Certificate) -> bool:
    """Whether OpenSSL's security level 2 would refuse it; the signature of an authority on itself says nothing."""
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
    """What a client must return before anything is kept for it (RFC 6347 section 4.2.1)."""
    return hmac.digest(_COOKIE_SECRET, connection.get_app_data(), hashlib.sha256)


def _set_psk_callback(key: str, context: SSL.Context, find: Any) -> object:
    """Have `find` called for the key of an identity; returns what must be kept as long as the context."""
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

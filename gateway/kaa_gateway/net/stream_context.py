"""The OpenSSL context of TLS over TCP, and those of the tenants that have server names.

Source: RFC 8446 (TLS 1.3), RFC 5246 (TLS 1.2); RFC 6066 section 3 for server names.
"""

from __future__ import annotations

import _ssl
import ssl
from typing import TYPE_CHECKING, Any, Protocol

from kaa_gateway.net.certificates import ServerSettings, unusable
from kaa_gateway.net.tenant_authorities import TenantAuthorities

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kaa_gateway.net.certificates import AuthoritySettings, Material

_VERIFY_MODES = {"off": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_MIN_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class StreamSettings(ServerSettings, Protocol):
    """The settings of a listener for TLS over TCP."""

    @property
    def min_version(self) -> str:
        """The oldest version of TLS."""


class StreamContext(ssl.SSLContext):
    """An OpenSSL context that knows the tenants of certificates. With `tenant`, it is the context of that tenant."""

    authorities: TenantAuthorities | None = None
    tenant: str | None = None

    def tenant_of(self, tls: ssl.SSLObject, leaf: bytes) -> str | None:
        """Return the tenant of the client's certificate after the handshake, or None. Raises HandshakeError."""
        if self.authorities is None:
            return None
        return self.authorities.tenant_of(leaf, _verified_chain(tls), self.tenant)


def stream_context(key: str, settings: StreamSettings, alpn: str | None, material: Material) -> StreamContext:
    """Make the OpenSSL context of a listener for TLS over TCP. Raises ConfigError."""
    context = _new_context(key, settings, settings, alpn, (settings, *settings.tenants.values()))
    if not material.tenants:
        return context
    context.authorities = TenantAuthorities(material)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    by_tenant = {}
    for name, tenant in settings.tenants.items():
        if tenant.server_names:
            own = tenant if tenant.cert_file is not None else settings
            its = by_tenant[name] = _new_context(f"{key}.tenants.{name}", settings, own, alpn, [tenant])
            its.authorities = context.authorities
            its.tenant = name
            its.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN

    def choose(tls: ssl.SSLObject | ssl.SSLSocket, server_name: str | None, default: ssl.SSLContext) -> None:
        tls.context = by_tenant.get(context.authorities.named(server_name) or "", default)  # type: ignore[union-attr]

    context.sni_callback = choose
    return context


def _new_context(
    key: str,
    settings: StreamSettings,
    own: ServerSettings | AuthoritySettings,
    alpn: str | None,
    clients: Iterable[ServerSettings | AuthoritySettings],
) -> StreamContext:
    """Make a context with the certificate of `own`, which verifies clients by the files of `clients`."""
    assert own.cert_file is not None
    context = StreamContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _MIN_VERSIONS[settings.min_version]
    # Renegotiation lets a client make the server compute for nothing.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    try:
        context.set_ciphers(settings.ciphers)
    except ssl.SSLError:
        raise unusable(f"{key}.ciphers", "no cipher suite in this list is available") from None
    try:
        context.load_cert_chain(own.cert_file, own.key_file)
        if settings.client_certificate != "off":
            for each in clients:
                if each.ca_file is not None:
                    context.load_verify_locations(each.ca_file)
                if each.crl_file is not None:
                    context.load_verify_locations(each.crl_file)
                    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    except (ssl.SSLError, OSError) as error:
        # For example a key that is too short for the security level of OpenSSL.
        raise unusable(f"{key}.cert-file", f"cannot be used: {error.strerror or error}") from None
    context.verify_mode = _VERIFY_MODES[settings.client_certificate]
    if alpn is not None:
        context.set_alpn_protocols([alpn])
    return context


def _verified_chain(tls: Any) -> list[bytes] | None:
    """Return the verified chain in DER form, the client's certificate first; None for a resumed session."""
    if hasattr(tls, "get_verified_chain"):  # since Python 3.13
        return tls.get_verified_chain() or None
    chain = tls._sslobj.get_verified_chain()
    return None if chain is None else [each.public_bytes(_ssl.ENCODING_DER) for each in chain]

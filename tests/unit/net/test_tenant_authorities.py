"""Which tenant a verified chain belongs to: names, nearest authorities, authorities of several, resumed sessions."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from kaa_gateway.config.keys import HttpTls, TenantTls
from kaa_gateway.errors import ConfigError, HandshakeError
from kaa_gateway.net.certificates import Material
from kaa_gateway.net.tenant_authorities import INTERMEDIATES_MAX, TenantAuthorities

from tests.support.certificates import Authority, Issued

KEY = "kaa.kpc.transports.http.tls"


def material(tenants: dict[str, TenantTls], **changes: Any) -> Material:
    return Material(KEY, HttpTls(client_certificate="required", tenants=tenants, **changes))


def authorities(tenants: dict[str, TenantTls], **changes: Any) -> TenantAuthorities:
    return TenantAuthorities(material(tenants, **changes))


def chain(client: Issued, *others: Authority) -> list[bytes]:
    certificates = [client.certificate, *(each.certificate for each in others)]
    return [each.public_bytes(Encoding.DER) for each in certificates]


def wrong(
    found: TenantAuthorities, client: list[bytes], asked: str | None = None, *, resumed: bool = False
) -> str:
    with pytest.raises(HandshakeError) as error:
        found.tenant_of(client[0], None if resumed else client, asked)
    return error.value.reason


def test_server_names(tmp_path: Path) -> None:
    acme, umbrella = (Authority(tmp_path, name).file for name in ("a", "u"))
    found = authorities(
        {
            "acme": TenantTls(ca_file=acme, server_names=("Acme.example", "*.acme.example")),
            "umbrella": TenantTls(ca_file=umbrella, server_names=("deep.acme.example",)),
        }
    )
    for name, tenant in {
        "acme.example": "acme",
        "ACME.EXAMPLE": "acme",
        "one.acme.example": "acme",
        "deep.acme.example": "umbrella",
        "two.one.acme.example": None,
        "example": None,
        "": None,
        None: None,
        "*.acme.example": "acme",
    }.items():
        assert found.named(name) == tenant, name


def test_the_nearest_authority_tells(tmp_path: Path) -> None:
    """Of two tenants with intermediate authorities below one root, which belongs to the listener itself."""
    root = Authority(tmp_path, "root")
    acme, umbrella, third = (Authority(tmp_path, name, parent=root) for name in ("a", "u", "t"))
    found = authorities(
        {"acme": TenantTls(ca_file=acme.file), "umbrella": TenantTls(ca_file=umbrella.file)},
        ca_file=root.file,
    )
    for issuer, tenant in ((acme, "acme"), (umbrella, "umbrella"), (third, None)):
        client = issuer.issue("device")
        assert found.tenant_of(chain(client)[0], chain(client, issuer, root), None) == tenant
        # A session is resumed without its chain; the intermediate authority is known from before.
        assert found.tenant_of(chain(client)[0], None, None) == tenant
    assert wrong(found, chain(umbrella.issue("device"), umbrella, root), "acme") == "tls_wrong_tenant"
    assert wrong(found, chain(third.issue("device"), third, root), "acme") == "tls_wrong_tenant"
    stranger = Authority(tmp_path, "stranger")
    assert wrong(found, chain(stranger.issue("device"), stranger)) == "tls_unknown_ca"
    assert wrong(found, chain(stranger.issue("device")), resumed=True) == "tls_unknown_ca"


def test_an_authority_of_two_tenants_needs_a_server_name(tmp_path: Path) -> None:
    shared = Authority(tmp_path).file
    names = {"acme": ("a",), "umbrella": ("u",)}
    found = authorities({name: TenantTls(ca_file=shared, server_names=each) for name, each in names.items()})
    client = chain(Authority(tmp_path, "x").issue("device"))
    (authority,) = (
        material({"acme": TenantTls(ca_file=shared, server_names=("a",))}).tenants["acme"].authorities
    )
    client.append(authority.public_bytes(Encoding.DER))
    for name in names:
        assert found.tenant_of(client[0], client, name) == name
    assert wrong(found, client) == "tls_wrong_tenant"
    for tenants, changes in (
        ({"acme": TenantTls(ca_file=shared, server_names=("a",)), "umbrella": TenantTls(ca_file=shared)}, {}),
        ({"acme": TenantTls(ca_file=shared), "umbrella": TenantTls(ca_file=shared, server_names=("u",))}, {}),
        ({"umbrella": TenantTls(ca_file=shared, server_names=("u",))}, {"ca_file": shared}),
    ):
        with pytest.raises(ConfigError, match=r"umbrella\.ca-file: has an authority of .* too"):
            material(tenants, **changes)


def test_a_resumed_session_is_verified_again(tmp_path: Path) -> None:
    acme = Authority(tmp_path)
    good, expired, revoked = acme.issue("good"), acme.issue("expired", expired=True), acme.issue("revoked")
    acme.revoke(revoked)
    found = authorities({"acme": TenantTls(ca_file=acme.file, crl_file=acme.crl_file)})
    assert found.tenant_of(chain(good)[0], None, None) == "acme"
    assert wrong(found, chain(expired), resumed=True) == "tls_certificate_expired"
    assert wrong(found, chain(revoked), resumed=True) == "tls_certificate_revoked"


def test_intermediate_authorities_are_remembered_up_to_a_bound_of_each_tenant(tmp_path: Path) -> None:
    roots = {name: Authority(tmp_path, name) for name in ("acme", "umbrella")}
    found = authorities({name: TenantTls(ca_file=root.file) for name, root in roots.items()})
    modest = Authority(tmp_path, "modest", parent=roots["umbrella"])
    device = modest.issue("device")
    assert found.tenant_of(chain(device)[0], chain(device, modest, roots["umbrella"]), None) == "umbrella"
    many = [Authority(tmp_path, "many", parent=roots["acme"]) for _ in range(INTERMEDIATES_MAX + 1)]
    clients = [each.issue("device") for each in (many[0], many[-1])]
    for issuer in many:
        client = chain(clients[0], issuer, roots["acme"])
        assert found.tenant_of(client[0], client, None) == "acme"
    assert wrong(found, chain(clients[0]), resumed=True) == "tls_unknown_ca", "the first was forgotten"
    assert found.tenant_of(chain(clients[1])[0], None, None) == "acme"
    assert found.tenant_of(chain(device)[0], None, None) == "umbrella"

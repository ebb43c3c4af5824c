"""`kaa-ext auth`: endpoint tokens and clients of the authentication provider (16/ECAP, 22/CAP)."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number
from kaa_gateway.bus.messages import now_ms

from kaa_ext.cli.common import Domain, Nats, check_instance, duration
from kaa_ext.cli.nats_work import run_with_nats
from kaa_ext.operations import credentials
from kaa_ext.operations.session import Session
from kaa_ext.sdk.urls import DEFAULT_NATS_URL
from kaa_ext.services.auth.registry import Registry

app = App(name="auth", help="Add, list, suspend and revoke endpoint tokens and clients.")

Provider = Annotated[str, Parameter(name="--provider", help="Service instance of the provider.")]
Id = Annotated[
    str, Parameter(name="ID", help="The ID that `add`, `add-client`, `add-certificate` and `list` print.")
]
Time = Annotated[str, Parameter(name="IN", help="Time from now, such as 90s, 12h or 30d; or `never`.")]
ExpiresIn = Annotated[
    str | None,
    Parameter(name="--expires-in", help="How long it is valid, such as 90s, 12h or 30d (default: for ever)."),
]
Tenant = Annotated[
    str, Parameter(name="--tenant", help="Tenant of the client; clients of 16/ECAP have none.")
]


def _expires(option: str, text: str | None) -> int | None:
    """Return the UNIX time in milliseconds at the end of a duration from now; None for None."""
    return None if text is None else now_ms() + int(duration(option, text).total_seconds() * 1000)


def _run(
    nats: str, jetstream_domain: str | None, provider: str, work: Callable[[Registry], Awaitable[None]]
) -> int:
    check_instance(provider)

    async def run(connection: Session) -> int:
        await work(await credentials.registry(connection, provider))
        return 0

    return run_with_nats(nats, jetstream_domain, run)


@app.command(name="add")
def add_token(
    endpoint: str,
    *,
    application: Annotated[str, Parameter(name="--app", env_var="KAA_APP")],
    token: str | None = None,
    expires_in: ExpiresIn = None,
    provider: Provider = "auth",
    nats: Nats = DEFAULT_NATS_URL,
    jetstream_domain: Domain = None,
) -> int:
    """Add an endpoint token, and print it and its ID. The token cannot be shown again.

    Example: kaa-ext auth add my-device --app demo_application

    Parameters
    ----------
    endpoint
        Endpoint ID, of your choice.
    application
        Application of the endpoint; the token is valid for all its versions.
    token
        The token (default: a random one).
    """

    expires = _expires("--expires-in", expires_in)

    async def work(registry: Registry) -> None:
        added, token_id = await registry.add_token(application, endpoint, token, expires=expires)
        print(f"token     {added}\nID        {token_id}")

    return _run(nats, jetstream_domain, provider, work)


@app.command
def add_client(
    user_name: str,
    *,
    tenant: Tenant = "",
    password: str | None = None,
    expires_in: ExpiresIn = None,
    provider: Provider = "auth",
    nats: Nats = DEFAULT_NATS_URL,
    jetstream_domain: Domain = None,
) -> int:
    """Add a client, or replace the password of one. Print the password and the credentials' ID.

    Example: kaa-ext auth add-client pump-house --tenant demo

    Parameters
    ----------
    user_name
        User name.
    password
        Password (default: a random one).
    """

    expires = _expires("--expires-in", expires_in)

    async def work(registry: Registry) -> None:
        password_, credentials_id = await registry.add_client(tenant, user_name, password, expires=expires)
        print(f"password  {password_}\nID        {credentials_id}")

    return _run(nats, jetstream_domain, provider, work)


@app.command
def add_certificate(
    issuer: str,
    serial_number: str,
    *,
    tenant: Tenant = "",
    expires_in: ExpiresIn = None,
    provider: Provider = "auth",
    nats: Nats = DEFAULT_NATS_URL,
    jetstream_domain: Domain = None,
) -> int:
    """Add a client by its certificate, and print the credentials' ID.

    Example: kaa-ext auth add-certificate 'CN=Devices CA,O=Example' 4711 --tenant demo

    Parameters
    ----------
    issuer
        Issuer of the certificate, in the form of RFC 4514.
    serial_number
        Serial number of the certificate, in decimal.
    """

    expires = _expires("--expires-in", expires_in)

    async def work(registry: Registry) -> None:
        print(f"ID        {await registry.add_certificate(tenant, issuer, serial_number, expires=expires)}")

    return _run(nats, jetstream_domain, provider, work)


@app.command
def add_authority(
    issuer: str,
    *,
    tenant: Tenant = "",
    provider: Provider = "auth",
    nats: Nats = DEFAULT_NATS_URL,
    jetstream_domain: Domain = None,
) -> int:
    """Let each certificate of an authority become a client when a device first comes with it.

    Gateways verify the certificates: this authority must be one of the tenant in their configuration.

    Example: kaa-ext auth add-authority 'CN=Devices CA,O=Example' --tenant demo

    Parameters
    ----------
    issuer
        Name of the authority, in the form of RFC 4514.
    """
    return _run(nats, jetstream_domain, provider, lambda registry: registry.set_authority(issuer, tenant))


@app.command
def remove_authority(
    issuer: str,
    *,
    provider: Provider = "auth",
    nats: Nats = DEFAULT_NATS_URL,
    jetstream_domain: Domain = None,
) -> int:
    """End `add-authority`. Clients that it has added stay.

    Parameters
    ----------
    issuer
        Name of the authority, in the form of RFC 4514.
    """
    return _run(nats, jetstream_domain, provider, lambda registry: registry.set_authority(issuer, None))


@app.command
def provision(
    application: str,
    *,
    limit: Annotated[
        int, Parameter(validator=Number(gte=0), help="Endpoints that devices may add; 0: no more.")
    ] = 1000,
    provider: Provider = "auth",
    nats: Nats = DEFAULT_NATS_URL,
    jetstream_domain: Domain = None,
) -> int:
    """Let each unknown token of an application become an endpoint when a device first comes with it.

    Whoever reaches the gateway can add endpoints. So let only clients with certificates connect, and bind their tokens:
    `kaa.tenants.<tenant>.certificates.tokens: common-name` in the gateway's configuration.

    Example: kaa-ext auth provision demo_application --limit 5000

    Parameters
    ----------
    application
        Application of the tokens.
    """
    return _run(
        nats, jetstream_domain, provider, lambda registry: registry.set_application(application, limit)
    )


@app.command(name="list")
def list_entries(
    *, provider: Provider = "auth", nats: Nats = DEFAULT_NATS_URL, jetstream_domain: Domain = None
) -> int:
    """List tokens and clients: ID, kind, application or tenant, name, status, expiry. Tokens are abbreviated."""

    async def work(registry: Registry) -> None:
        async for entry in registry.entries():
            print("  ".join(filter(None, entry)))

    return _run(nats, jetstream_domain, provider, work)


@app.command
def revoke(
    id_: Id, /, *, provider: Provider = "auth", nats: Nats = DEFAULT_NATS_URL, jetstream_domain: Domain = None
) -> int:
    """Revoke a token or a client by its ID; gateways end its sessions at once."""
    return _run(nats, jetstream_domain, provider, lambda registry: registry.set_status(id_, "Revoked"))


@app.command
def suspend(
    id_: Id, /, *, provider: Provider = "auth", nats: Nats = DEFAULT_NATS_URL, jetstream_domain: Domain = None
) -> int:
    """Suspend a token or a client until `resume`; gateways end its sessions at once."""
    return _run(nats, jetstream_domain, provider, lambda registry: registry.set_status(id_, "Suspended"))


@app.command
def resume(
    id_: Id, /, *, provider: Provider = "auth", nats: Nats = DEFAULT_NATS_URL, jetstream_domain: Domain = None
) -> int:
    """Make a suspended or revoked token or client valid again."""
    return _run(nats, jetstream_domain, provider, lambda registry: registry.set_status(id_, "Active"))


@app.command
def expire(
    id_: Id,
    in_: Time,
    /,
    *,
    provider: Provider = "auth",
    nats: Nats = DEFAULT_NATS_URL,
    jetstream_domain: Domain = None,
) -> int:
    """Set when a token or a client expires. An expired one becomes valid again.

    Example: kaa-ext auth expire t-1f9c8e2b7a60 30d
    """
    expires = None if in_ == "never" else _expires("expire", in_)
    return _run(nats, jetstream_domain, provider, lambda registry: registry.set_expiry(id_, expires))

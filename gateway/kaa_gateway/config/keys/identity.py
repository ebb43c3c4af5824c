"""The keys of `kaa.kpc.identity`: the providers of tokens and of clients."""

from typing import Annotated, Literal

from msgspec import Meta

from kaa_gateway.config.keys.units import DAY, MANY
from kaa_gateway.config.schema import Section
from kaa_gateway.config.value_types import Boolean, Integer, Name, OptionalLevelName, OptionalPath, Seconds

ClientAuthentication = Annotated[
    Literal["off", "optional", "required"],
    Meta(
        description="`off`: credentials are not looked at; `optional`: those that are presented must be right; "
        "`required`: no client without. See [identity.md](identity.md)."
    ),
]


class StaticIdentity(Section, frozen=True, kw_only=True):
    """The identity provider `static`."""

    file: Annotated[
        OptionalPath,
        Meta(description="YAML file of tokens, and of clients; whoever has the provider `static` needs it."),
    ] = None


class Ecap(Section, frozen=True, kw_only=True):
    """The identity provider `ecap`."""

    service_instance: Annotated[
        Name, Meta(description="Service instance that is asked for endpoint tokens by 16/ECAP.")
    ] = "epr"
    requests_in_flight: Annotated[
        Integer, Meta(ge=1, le=10_000, description="Tokens that one worker asks for at one time.")
    ] = 256
    cache_size: Annotated[
        Integer,
        Meta(ge=1, le=MANY, description="Tokens that one worker remembers; good and bad ones apart."),
    ] = 100_000
    cache_ttl: Annotated[
        Seconds,
        Meta(ge=0, le=DAY, description="Seconds that another connection may come with a good token unasked."),
    ] = 300.0
    negative_cache_ttl: Annotated[
        Seconds, Meta(ge=0, le=DAY, description="Seconds that a rejected token stays rejected unasked.")
    ] = 5.0
    activate_tokens: Annotated[
        Boolean, Meta(description="Whether the provider is told of a token's first use, which activates it.")
    ] = True


class Clients(Section, frozen=True, kw_only=True):
    """The provider that checks the credentials of clients."""

    provider: Annotated[
        Literal["none", "static", "ecap", "cap"],
        Meta(
            description="`none`: clients are not authenticated; `static`: the file; `ecap`: 16/ECAP; "
            "`cap`: 22/CAP, by tenant."
        ),
    ] = "none"
    service_instance: Annotated[
        Name, Meta(description="Service instance that is asked for clients by 16/ECAP or 22/CAP.")
    ] = "cm"
    default_tenant: Annotated[
        OptionalLevelName,
        Meta(description="22/CAP: tenant of user names that name none; nothing: the only one that there is."),
    ] = None
    requests_in_flight: Annotated[
        Integer, Meta(ge=1, le=10_000, description="Credentials that one worker has checked at one time.")
    ] = 256
    cache_size: Annotated[
        Integer,
        Meta(ge=1, le=MANY, description="Credentials that one worker remembers, right and wrong apart."),
    ] = 100_000
    cache_ttl: Annotated[
        Seconds, Meta(ge=0, le=DAY, description="Seconds that right credentials are taken unasked.")
    ] = 60.0
    negative_cache_ttl: Annotated[
        Seconds, Meta(ge=0, le=DAY, description="Seconds that wrong credentials are refused unasked.")
    ] = 5.0


class IdentitySettings(Section, frozen=True, kw_only=True):
    """The provider that resolves tokens to endpoints."""

    provider: Annotated[
        Literal["open", "static", "ecap"],
        Meta(
            description="`open`: the token is the endpoint ID, for trusted networks only; `static`: a file; "
            "`ecap`: a service of the cluster, by 16/ECAP."
        ),
    ] = "open"
    timeout: Annotated[
        Seconds, Meta(ge=0.1, le=60, description="Seconds that a provider has to answer; then it is 503.")
    ] = 5.0
    static: StaticIdentity = StaticIdentity()
    ecap: Ecap = Ecap()
    clients: Clients = Clients()

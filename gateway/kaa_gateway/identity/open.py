"""The identity provider `open`: the token is the endpoint ID.

Any client that knows an endpoint ID can use it, so this provider is for development and for trusted networks.
"""

from kaa_gateway.identity.provider import Identity


class OpenProvider:
    """Accepts every token."""

    async def start(self) -> None:
        """Do nothing: the provider is always ready."""

    async def stop(self) -> None:
        """Do nothing: the provider holds nothing."""

    def scope(self, app_version_name: str) -> str:
        """Return one scope for all: an endpoint ID means the same everywhere."""
        return ""

    def known(self, scope: str, token: str) -> Identity:
        """Return the endpoint whose ID is the token."""
        return Identity(token)

    async def resolve(self, scope: str, token: str) -> Identity:
        """Return the same as `known`."""
        return self.known(scope, token)

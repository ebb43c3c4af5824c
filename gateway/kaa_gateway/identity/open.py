"""The identity provider `open`: the token is the endpoint ID.

Whoever knows an endpoint ID speaks for that endpoint, so this is for development and for trusted networks.
"""

from kaa_gateway.identity.provider import Identity


class OpenProvider:
    """Accepts every token."""

    async def start(self) -> None:
        """There is nothing to make ready."""

    async def stop(self) -> None:
        """There is nothing to let go of."""

    def scope(self, app_version_name: str) -> str:
        """An endpoint ID means the same everywhere."""
        return ""

    def known(self, scope: str, token: str) -> Identity:
        """The endpoint whose ID is the token."""
        return Identity(token)

    async def resolve(self, scope: str, token: str) -> Identity:
        """The same."""
        return self.known(scope, token)

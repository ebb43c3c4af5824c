"""From an endpoint token to its endpoint: what the provider knows at once, or one request per token.

What lives here: which of the two. What does not: sharing a request (`kaa_gateway.identity.sharing`), what a provider
remembers, and the queue of the messages that wait (`kaa_gateway.kp`).
"""

import asyncio

from kaa_gateway.errors import IdentityError
from kaa_gateway.identity.provider import Identity, IdentityProvider, shortened
from kaa_gateway.identity.sharing import MAX_IN_FLIGHT, SharedRequests


class Resolver:
    """Resolves tokens through `provider`, which has `timeout` seconds for each; see `SharedRequests` for the bounds."""

    def __init__(
        self,
        provider: IdentityProvider,
        timeout: float,
        *,
        concurrent: int = MAX_IN_FLIGHT,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        self._provider = provider
        self.requests: SharedRequests[tuple[str, str], Identity] = SharedRequests(
            lambda question: provider.resolve(*question),
            timeout,
            concurrent=concurrent,
            max_in_flight=max_in_flight,
            shown=lambda question: f"token {shortened(question[1])}",
        )

    def resolve(self, app_version_name: str, token: str) -> asyncio.Future[Identity]:
        """The endpoint of `token`, in a future as `SharedRequests.ask` gives it."""
        try:
            scope = self._provider.scope(app_version_name)
            identity = self._provider.known(scope, token)
        except IdentityError as error:
            refused: asyncio.Future[Identity] = asyncio.get_running_loop().create_future()
            refused.set_exception(error)
            return refused
        if identity is None:
            return self.requests.ask((scope, token))
        found: asyncio.Future[Identity] = asyncio.get_running_loop().create_future()
        found.set_result(identity)
        return found

    async def stop(self) -> None:
        """Ends all requests in flight; who waits gets `identity_unavailable`."""
        await self.requests.stop()

"""Resolving endpoint tokens: from what the provider knows, or by one request for each token.

What lives here: the choice between the two. What does not: sharing a request
(`kaa_gateway.identity.shared_requests`), what a provider remembers, and the queue of the messages that wait
(`kaa_gateway.kp`).
"""

import asyncio

from kaa_gateway.errors import IdentityError
from kaa_gateway.identity.provider import Identity, IdentityProvider, shortened
from kaa_gateway.identity.shared_requests import MAX_IN_FLIGHT, SharedRequests


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
        """Return a future of the endpoint of `token`, with the exceptions of `SharedRequests.ask`."""
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
        """End all requests in flight; those who wait get `identity_unavailable`."""
        await self.requests.stop()

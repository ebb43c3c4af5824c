"""A NATS connection for operations. They fail with one sentence where a service would wait."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import nats.errors
from kaa_gateway.bus.flushing import FLUSH_TIMEOUT_S
from kaa_gateway.bus.nats_client import NatsClient
from nats.aio.client import Client
from nats.js import JetStreamContext

from kaa_ext.operations.errors import Unavailable
from kaa_ext.sdk.buckets import JetStreamBucket
from kaa_ext.sdk.state import State
from kaa_ext.sdk.timeouts import CONNECT_TIMEOUT_S, JETSTREAM_TIMEOUT_S
from kaa_ext.sdk.urls import masked

T = TypeVar("T")


class Session:
    """What operations need of NATS, on a connected client. States are in the JetStream domain `domain`."""

    def __init__(self, client: Client, domain: str | None = None) -> None:
        self.client = client
        self._domain = domain
        self._states: dict[tuple[str, str], State[Any]] = {}

    def jetstream(self) -> JetStreamContext:
        """Return JetStream on this connection."""
        return self.client.jetstream(domain=self._domain, timeout=JETSTREAM_TIMEOUT_S)

    async def state(self, instance: str, name: str, kind: type[T]) -> State[T]:
        """Return a state of a service instance. Raise Unavailable if the service has never run."""
        state: State[T] | None = self._states.get((instance, name))
        if state is not None:
            return state
        bucket = f"{instance}-{name}"
        try:
            await self.jetstream().stream_info(f"KV_{bucket}")
        except nats.errors.Error as error:
            raise Unavailable(
                f"there is no state of {instance} on this NATS server; has `kaa-ext run {instance}` been started?"
            ) from error
        state = State(lambda: JetStreamBucket(self.jetstream, bucket, None, 1, self._domain), kind)
        await state.open()
        self._states[instance, name] = state
        return state

    async def publish(self, subject: str, payload: bytes) -> None:
        """Publish a message, and wait until the server has it."""
        await self.client.publish(subject, payload)
        await self.client.flush(FLUSH_TIMEOUT_S)


@asynccontextmanager
async def session(urls: Sequence[str], domain: str | None = None) -> AsyncIterator[Session]:
    """Connect to NATS for a short time. Raise Unavailable if that fails, or if an operation inside fails.

    States are in the JetStream domain `domain`.
    """
    client = NatsClient()
    names = ", ".join(map(masked, urls))

    async def silent(error: Exception) -> None:
        pass  # the failed call raises the error

    try:
        await client.connect(
            list(urls),
            name="kaa-ext",
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=CONNECT_TIMEOUT_S,
            error_cb=silent,
        )
    except (nats.errors.Error, OSError) as error:
        raise Unavailable(
            f"NATS cannot be reached at {names}; is it running? --nats names another"
        ) from error
    try:
        yield Session(client, domain)
    except nats.errors.Error as error:
        raise Unavailable(f"NATS at {names}: {error or type(error).__name__}") from error
    finally:
        with suppress(nats.errors.Error):
            await client.close()

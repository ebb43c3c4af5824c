"""Hands data samples from their transmitters to receivers in the same process, without 13/DSTP over NATS.

The events of 13/DSTP are published all the same, for receivers elsewhere. A replica of the same receiver in another
process may get one too; it stores it under the same identifier, so that the stream keeps it once.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from kaa_ext.sdk.extension import Extension


class Samples(NamedTuple):
    """The data samples of one message of an endpoint, each the JSON of the device. `id` is unique."""

    id: str
    app_version_name: str
    endpoint_id: str
    samples: list[bytes]


class Outcome(NamedTuple):
    """The status code and the reason phrase by which a receiver confirms samples or refuses them."""

    status_code: int
    reason_phrase: str | None = None


class Receiver(NamedTuple):
    """The functions of a receiver. They use the connection of the transmitter's extension, which is given.

    `prepare` is called before the first samples; `receive` takes samples in order and returns the outcome of each.
    """

    prepare: Callable[[Extension], Awaitable[None]]
    receive: Callable[[Extension, Sequence[Samples]], Awaitable[Sequence[Outcome]]]


class LocalReceivers:
    """The receivers of this process, by the transmitters that run in it."""

    def __init__(self, transmitters: Iterable[str] = ()) -> None:
        self._receivers: dict[str, dict[str, Receiver]] = {each: {} for each in transmitters}

    def add(self, transmitter: str, name: str, receiver: Receiver) -> bool:
        """Add a receiver. Return False if the transmitter does not run in this process."""
        receivers = self._receivers.get(transmitter)
        if receivers is None:
            return False
        receivers[name] = receiver
        return True

    def of(self, transmitter: str) -> Mapping[str, Receiver]:
        """Return the receivers of a transmitter by name. More may be added before the services start."""
        return self._receivers.get(transmitter, {})

"""The error tree of the extension SDK."""

from http import HTTPStatus


class ExtError(Exception):
    """The base of all errors that the SDK raises."""


class ExtensionError(ExtError):
    """Raised by a handler: answers the request with an error status.

    `status_code` is the HTTP status, 400 to 599. `reason_phrase` goes to the device, so it says what the
    device can do better, and nothing about the inside of the service; the default is the standard phrase of the status.
    """

    def __init__(self, status_code: int, reason_phrase: str | None = None) -> None:
        if not 400 <= status_code <= 599:
            raise ValueError(f"status code {status_code} is not that of an error, 400 to 599")
        if reason_phrase is None:
            known = status_code in HTTPStatus.__members__.values()
            reason_phrase = HTTPStatus(status_code).phrase if known else "Error"
        super().__init__(f"{status_code} {reason_phrase}")
        self.status_code = status_code
        self.reason_phrase = reason_phrase


class NotDelivered(ExtError):  # noqa: N818 - says what happened to the message
    """NATS did not take a message: there is no connection, and no room to keep the message until there is one."""


class PayloadTooLarge(NotDelivered):
    """A message is larger than the `max_payload` of the NATS server."""


class StateUnavailable(ExtensionError):  # noqa: N818 - says what is wrong with the state
    """JetStream did not answer in time: the operation may or may not have happened.

    A handler lets this error pass: the device gets 503 and repeats its request.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(503, "State is not available")
        self.reason = reason


class CannotListen(ExtError):  # noqa: N818 - says what the process cannot do
    """An address is in use, or is none of this machine."""


class Conflict(ExtError):  # noqa: N818 - one of the two outcomes of a conditional write
    """The key, or the subject of a stream, has another revision than the caller expected."""


def text_of(error: Exception) -> str:
    """Return the message of an error, or its name: several errors of asyncio and nats-py have no message."""
    return str(error) or type(error).__name__

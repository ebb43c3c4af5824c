"""What a plug-in is told, and the error by which it tells a violation of its protocol."""

from __future__ import annotations

from typing import NamedTuple


class Answer(NamedTuple):
    """The answer to a request: that of its extension, or the gateway's own refusal (404, 429, 503, 504 ...)."""

    status: int
    reason: str
    payload: bytes

    @property
    def is_success(self) -> bool:
        """Whether the extension has done what it was asked for."""
        return 200 <= self.status < 300


class Push(NamedTuple):
    """A message that an extension sends unasked, such as a command or a configuration."""

    extension: str
    """The name of the extension instance."""
    path: str
    """The resource path, such as `/command/reboot`."""
    token: str
    """The token of the endpoint that it is for; empty for an extension without endpoints."""
    status: int
    reason: str
    payload: bytes


class Refusal(NamedTuple):
    """Why a token or a message was refused. The status is that of HTTP."""

    status: int
    reason: str


class Violation(Exception):  # noqa: N818 - the field's word for it
    """The device breaks its protocol. Raise it to end the connection.

    `reason` is one of the class's `reasons`. The gateway counts it as `<protocol>_<reason>`.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail

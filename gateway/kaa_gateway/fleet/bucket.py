"""A JetStream KV bucket that workers share: its stream, its keys, and what JetStream refuses.

The control connection has no key-value API that survives the loss of a server, so requests to JetStream are written
here.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import structlog

from kaa_gateway.bus import subjects
from kaa_gateway.bus.codes import NO_MESSAGE
from kaa_gateway.errors import BusError

if TYPE_CHECKING:
    from kaa_gateway.bus.control import Control

log = structlog.get_logger("gateway.fleet")

REQUEST_TIMEOUT = 5.0
WRONG_LAST_SEQUENCE = 10071
EXPECTED_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"


class Value(NamedTuple):
    """What a key has."""

    datum: bytes | None
    """None if it was never set."""
    sequence: int


class BucketError(BusError):
    """JetStream has refused a request, with this code."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__("jetstream_refused", description)
        self.code = code


class Bucket:
    """A bucket of this name, on `copies` NATS servers.

    A `lasting` one is in files. Another one is in memory, and its messages may have a time to live.
    """

    def __init__(self, control: Control, name: str, copies: int, *, lasting: bool) -> None:
        self._control = control
        self._name = name
        self._copies = copies
        self._lasting = lasting
        self._reported = ""

    def subject(self, key: str) -> str:
        """Return the subject of a key."""
        return f"$KV.{self._name}.{key}"

    async def make(self) -> None:
        """Make the stream of the bucket if there is none."""
        stream: dict[str, Any] = {
            "name": f"KV_{self._name}",
            "subjects": [self.subject(">")],
            "max_msgs_per_subject": 1,
            "discard": "new",
            "storage": "file" if self._lasting else "memory",
            "num_replicas": self._copies,
            "allow_rollup_hdrs": True,
            "deny_delete": True,
            "allow_direct": True,
        }
        if not self._lasting:
            stream["allow_msg_ttl"] = True
        try:
            await self.ask("STREAM.INFO", {})
        except BucketError:
            await self.ask("STREAM.CREATE", stream)

    async def ask(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer of JetStream's API to a request about the stream. BusError if there is none."""
        subject = subjects.jetstream(self._control.jetstream_domain, f"{what}.KV_{self._name}")
        return _checked(await self._control.request(subject, msgspec.json.encode(body), REQUEST_TIMEOUT))

    async def last_sequence(self) -> int:
        """Return the sequence of what was written last, to any key. BusError if JetStream does not answer."""
        return int((await self.ask("STREAM.INFO", {})).get("state", {}).get("last_seq", 0))

    async def put(self, key: str, datum: bytes, headers: dict[str, str] | None = None) -> None:
        """Set a key, and return when JetStream has it. BusError if it does not say so."""
        _checked(await self._control.request(self._written(key), datum, REQUEST_TIMEOUT, headers))

    async def put_unconfirmed(self, key: str, datum: bytes, headers: dict[str, str] | None = None) -> None:
        """Set a key, without waiting for JetStream."""
        await self._control.publish(self._written(key), datum, headers)

    def _written(self, key: str) -> str:
        """Return the subject that a value is published on."""
        return subjects.jetstream(self._control.jetstream_domain, self.subject(key))

    async def get(self, key: str) -> Value:
        """Return what a key has. BusError if JetStream does not answer."""
        try:
            answer = await self.ask("STREAM.MSG.GET", {"last_by_subj": self.subject(key)})
        except BucketError as error:
            if error.code != NO_MESSAGE:
                raise
            return Value(None, 0)
        message = answer["message"]
        return Value(base64.b64decode(message.get("data", "")), int(message["seq"]))

    async def replace(self, key: str, datum: bytes, sequence: int) -> bool:
        """Set a key whose Value had this sequence. Return False if somebody else has set it meanwhile."""
        try:
            await self.put(key, datum, {EXPECTED_SEQUENCE: str(sequence)})
        except BucketError as error:
            if error.code != WRONG_LAST_SEQUENCE:
                raise
            return False
        return True

    def report(self, error: BusError) -> None:
        """Log that the bucket cannot be used: each new reason once. That NATS is away, others say."""
        sentence = str(error)
        if sentence != self._reported and self._control.connected:
            log.warning("a JetStream bucket cannot be used, trying on", bucket=self._name, error=sentence)
            self._reported = sentence

    def worked(self) -> None:
        """Note that the bucket can be used: the next failure is logged again."""
        self._reported = ""


def _checked(data: bytes) -> dict[str, Any]:
    answer: dict[str, Any] = msgspec.json.decode(data, type=dict)
    if error := answer.get("error"):
        raise BucketError(int(error.get("err_code", 0)), str(error.get("description")))
    return answer

"""The devices of a soak: each sends numbered messages to one extension instance, and records their acknowledgements.

They are simple devices: they reconnect, to the other gateway if one does not answer, and leave a message unacknowledged
if its answer is late. MQTT is in mqtt_device.py.
"""

import asyncio
import contextlib
from collections.abc import Sequence

import aiocoap
import aiohttp

from kaa_bench.errors import BenchError
from kaa_bench.peers.kpudp_client import KpudpClient, RefusedError
from kaa_bench.processes import HOST
from kaa_bench.soak.checker import Promises
from kaa_bench.soak.history import History

RESPONSE_TIMEOUT_S = 8.0
"""How long the gateways of a soak wait for an extension's answer to a request."""
TWO_REPETITIONS_S = 9.0
"""The longest time until a gateway has sent a separate response for the third time (RFC 7252, section 4.2)."""
COAP_ANSWER_TIMEOUT_S = 22.0
ANSWER_TIMEOUT_S = 12.0
ACK_TIMEOUT_S = 0.5
"""Seconds before a datagram is sent again, which happens often in a soak."""
RECONNECT_S = 0.2


class Device:
    """A device. `ports` are those of the gateways for its protocol."""

    kind = ""
    promises = Promises()
    """What the gateway promises to a device of this kind, if its messages are not durable."""

    def __init__(
        self, number: int, app_version: str, instance: str, ports: Sequence[int], interval_s: float
    ) -> None:
        self.number = number
        self.token = f"soak-{number}"
        self.instance = instance
        self.history = History(self.token)
        self.path = f"kp1/{app_version}/{instance}/{self.token}/json"
        self.interval_s = interval_s
        self._ports = ports
        self._gateway = number
        self._may_send = asyncio.Event()
        self._may_send.set()

    @property
    def port(self) -> int:
        """The port of the gateway that it uses now."""
        return self._ports[self._gateway % len(self._ports)]

    def pause(self, *, on: bool) -> None:
        """Pause, or continue."""
        if on:
            self._may_send.clear()
        else:
            self._may_send.set()

    async def may_send(self) -> None:
        """Wait until the next message is due."""
        await asyncio.sleep(self.interval_s)
        await self._may_send.wait()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            self.history.connect()
            try:
                await self.session()
            except (OSError, TimeoutError, BenchError, aiohttp.ClientError, aiocoap.error.Error):
                self._gateway += 1
                await asyncio.sleep(RECONNECT_S)

    async def session(self) -> None:
        """Send until something fails."""
        raise NotImplementedError

    def payload(self, number: int) -> bytes:
        """Return the payload of a message: the number of the message, and the number of the connection."""
        return b"%d %d" % (number, self.history.connection)

    def answered(self, number: int, payload: bytes) -> None:
        """Record the answer of the extension, which says to which message it belongs."""
        token, _, claimed = payload.decode(errors="replace").partition(" ")
        self.history.answer(number, token, int(claimed) if claimed.isdecimal() else 0)


class HttpDevice(Device):
    """An HTTP device that sends POSTs, one after the other."""

    kind = "HTTP"
    promises = Promises(deadline_s=RESPONSE_TIMEOUT_S)

    async def session(self) -> None:
        """See `Device.session`."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
        url = f"http://{HOST}:{self.port}/{self.path}"
        async with aiohttp.ClientSession(timeout=timeout) as client:
            while True:
                await self.may_send()
                number = self.history.send()
                try:
                    async with client.post(url, data=self.payload(number)) as response:
                        payload = await response.read()
                        if response.status == 200:
                            self.history.acknowledge(number)
                            self.answered(number, payload)
                        else:
                            self.history.refuse(number)
                except TimeoutError:
                    self.history.give_up(number)
                    raise


class CoapTuning(aiocoap.numbers.constants.TransportTuning):  # type: ignore[misc]
    """The transmission parameters that differ from RFC 7252, section 4.8."""

    ACK_TIMEOUT = ACK_TIMEOUT_S


class CoapDevice(Device):
    """A CoAP device that sends confirmable POSTs, one after the other."""

    kind = "CoAP"
    promises = Promises(deadline_s=RESPONSE_TIMEOUT_S + TWO_REPETITIONS_S)

    async def session(self) -> None:
        """See `Device.session`."""
        client = await aiocoap.Context.create_client_context(transports=["simple6"])
        try:
            while True:
                await self.may_send()
                number = self.history.send()
                request = aiocoap.Message(
                    code=aiocoap.POST,
                    uri=f"coap://{HOST}:{self.port}/{self.path}",
                    payload=self.payload(number),
                    transport_tuning=CoapTuning(),
                )
                try:
                    response = await asyncio.wait_for(client.request(request).response, COAP_ANSWER_TIMEOUT_S)
                except TimeoutError:
                    self.history.give_up(number)
                    raise
                if response.code.is_successful():
                    self.history.acknowledge(number)
                    self.answered(number, response.payload)
                else:
                    self.history.refuse(number)
        finally:
            await client.shutdown()


class KpudpDevice(Device):
    """A KP/UDP device that sends CONFIRMED DATA, one message after the other."""

    kind = "KP/UDP"

    async def session(self) -> None:
        """See `Device.session`."""
        async with KpudpClient(self.port, ack_timeout=ACK_TIMEOUT_S) as client:
            while True:
                await self.may_send()
                number = self.history.send()
                with contextlib.suppress(RefusedError):
                    await asyncio.wait_for(
                        client.confirmed(self.path, self.payload(number)), ANSWER_TIMEOUT_S
                    )
                    self.history.acknowledge(number)
                    continue
                self.history.refuse(number)

"""Pushes messages to the devices of a fleet, as an extension does: over NATS, to the gateway's instance (4/ESP).

A push has a time at which it is due, which stands in its payload; the device takes its latency from there. Devices
and pushes of a process have one clock.
"""

import asyncio
import time
from collections.abc import Sequence

import msgspec
import nats
import nats.errors
from kaa_gateway.bus import subjects
from kaa_gateway.wire import esp

from kaa_bench.errors import BenchError
from kaa_bench.sim.device import Device
from kaa_bench.sim.scenario import Downlink, Fleet

CONNECT_TIMEOUT_S = 5
SUCCESS = 200


class Pushed(msgspec.Struct):
    """The payload of a push: when it was due, by the monotonic clock of the simulator's process."""

    due_ns: int


async def push(fleet: Fleet, downlink: Downlink, devices: Sequence[Device], share: float) -> None:
    """Push to the devices in turn until cancelled; this process has the part `share` of the fleet.

    Only devices that are connected get pushes. Raise BenchError if NATS cannot be reached.
    """
    try:
        client = await nats.connect(
            downlink.nats,
            connect_timeout=CONNECT_TIMEOUT_S,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            error_cb=_ignore,
        )
    except (nats.errors.Error, OSError) as error:
        raise BenchError(f"downlink.nats: {error or type(error).__name__}") from None
    subject = subjects.service(downlink.instance, "esp", subjects.EXTENSION_DATA)
    pause_s = downlink.interval / (fleet.devices * share)
    start, number = time.monotonic(), 0
    try:
        while True:
            due = start + number * pause_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            device = devices[number % len(devices)]
            number += 1
            if device.is_connected:
                device.count_push()
                await client.publish(subject, _datum(fleet, downlink, device, due))
    finally:
        await client.close()


def _datum(fleet: Fleet, downlink: Downlink, device: Device, due: float) -> bytes:
    payload = msgspec.json.encode(Pushed(int(due * 1e9)))
    return esp.encode_extension_data(
        "",
        time.time_ns() // 1_000_000,
        0,
        fleet.application_version,
        fleet.extension,
        device.endpoint_id,
        f"/{downlink.path}",
        None,
        payload,
        SUCCESS,
    )


async def _ignore(error: Exception) -> None:
    """Take an error that the failed call raises as well."""

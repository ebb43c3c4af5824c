"""The measurement of devices that wait for a push, with few of them."""

import asyncio
import re
import sys

import pytest

TIMEOUT_S = 120.0


@pytest.mark.parametrize("protocol", ["mqtt", "http", "coap"])
async def test_devices_wait_and_are_answered(protocol: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kaa_bench.waiting", "--protocol", protocol, "--devices", "40",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert process.returncode == 0
    assert re.fullmatch(
        rf"{protocol}: -?[\d,]+ bytes a waiting device; CPU \d+ us to connect and begin to wait, "
        r"\d+ us to be answered by a push \(40 devices, \d+ s\)\n",
        output.decode(),
    )

"""The measurement of what DTLS costs beside libcoap's server, with few handshakes and messages."""

import asyncio
import re
import sys

TIMEOUT_S = 240.0
LINE = r"(gateway|libcoap): handshake \d+ us, resumed (?:(\d+) us|none), request [\d.]+ us of CPU"


async def test_both_servers_are_measured() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kaa_bench.dtls", "--handshakes", "3", "--messages", "64",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert process.returncode == 0
    lines = [re.fullmatch(LINE, line) for line in output.decode().splitlines()]
    assert [line and line[1] for line in lines] == ["gateway", "libcoap"]
    assert lines[0] is not None
    assert lines[0][2] is not None, "the gateway resumes sessions"

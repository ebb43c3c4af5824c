"""The hex examples of docs/kp-over-udp.md and the test vectors of docs/kp-over-udp-secure.md, read from there."""

import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "kp-over-udp.md"

HEX = [bytes.fromhex(text) for text in re.findall(r"```hex\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)]
"""The datagrams, in the order of the document."""

SECURE_DOCUMENT = DOCUMENT.with_name("kp-over-udp-secure.md")

VECTORS = {
    name: bytes.fromhex(text)
    for name, text in re.findall(
        r"^\| ([^|]+) \| `([0-9a-f]+)` \|$", SECURE_DOCUMENT.read_text(), re.MULTILINE
    )
}
"""The test vectors of encrypted KP/UDP by their names in the document."""

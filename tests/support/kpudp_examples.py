"""The hex examples of docs/kp-over-udp.md, read from the document."""

import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "kp-over-udp.md"

HEX = [bytes.fromhex(text) for text in re.findall(r"```hex\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)]
"""The datagrams, in the order of the document."""

"""docs/reasons.md against the code: every reason that is counted is explained, and nothing else."""

import re
from pathlib import Path

from kaa_gateway.app import replica
from kaa_gateway.wire import avro, coap, coap_stream, kpudp, mqtt_sn, proxy_header, websocket
from kaa_gateway.wire.kpudp_secure import SECURE_REASONS

ROOT = Path(__file__).resolve().parents[2]
NATIVE = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "gateway").rglob("*.pyx"))]
GATEWAY = ROOT / "gateway" / "kaa_gateway"
MQTT = [
    path.read_text(encoding="utf-8")
    for path in (*(GATEWAY / "wire").glob("mqtt*.pyx"), *(GATEWAY / "mqtt").glob("*.pyx"))
]
NO_COUNTERS = {"certificates.py"}
"""Its errors are those of the configuration."""
COUNTED = [
    r'\bcounter_of\("\w+", "(\w+)"',
    r'\bcount\(\s*"\w+",\s*"(\w+)"',
    r'\bcount\(\s*"\w+",\s*"\w+" if \w+ else "(\w+)"',
    r'\bdrop_message\((?:&?message, )?"(\w+)"',
    r'\brefuse_push\(delivery, "(\w+)"',
    r'\.(?:drop|end|refuse_and_close|hang_up)\("(\w+)"\)',
    r'\bRefusal\(\s*\w+,\s*"(\w+)"',
    r'\bend_reason = "(\w+)"',
    r'\bdrop\(message, "(\w+)"',
    r'\bdrop\(self\.current, "(\w+)"',
    r'\.end\("(\w+)", (?:True|False)\)',
    r'"(\w+)" if self\.end_reason is None',
    # A refusal: status, reason, and the sentence for the device.
    r'(?:cdef tuple|cdef Refusal) \w+ = (?:Refusal)?\(\s*\w+,\s*"(\w+)"',
    r'\brefuse\((?:[^()"]|\([^()]*\)|"[^"]*",)*?"([a-z0-9_]+)",?\s*\)',
    r'IdentityError\(\s*\w+,\s*"(\w+)"',
]


def counted() -> set[str]:
    """The reasons in the code."""
    found = {reason for text in NATIVE for pattern in COUNTED for reason in re.findall(pattern, text)}
    for text in MQTT:
        found |= {f"mqtt_{reason}" for reason in re.findall(r'\bviolation\(\s*"(\w+)"', text)}
    for text in NATIVE:
        found |= set(re.findall(r'ProtocolError\("(coap_\w+)"', text))
    for reasons in (
        avro.MALFORMED_REASONS,
        coap.FORMAT_REASONS,
        coap_stream.STREAM_REASONS,
        kpudp.MALFORMED_REASONS,
        mqtt_sn.MALFORMED_REASONS,
        SECURE_REASONS,
    ):
        found |= set(reasons)
    secure_socket = (GATEWAY / "kpudp" / "secure_socket.pyx").read_text(encoding="utf-8")
    found |= set(re.findall(r'"(kpudp_\w+)"', secure_socket))
    topics = (GATEWAY / "mqtt_sn" / "topics.pyx").read_text(encoding="utf-8")
    found |= set(re.findall(r'"(mqtt_sn_\w+)"', topics))
    for path in (GATEWAY / "net").iterdir():
        if path.suffix in (".py", ".pyx") and path.name not in NO_COUNTERS:
            found |= set(re.findall(r'"((?:ws|tls|dtls)_\w+)"', path.read_text(encoding="utf-8")))
    found |= {*websocket.FORMAT_REASONS, *proxy_header.FORMAT_REASONS}
    for path in (GATEWAY / "identity").iterdir():
        if path.suffix == ".py":
            text = path.read_text(encoding="utf-8")
            found |= set(re.findall(r'^(?:IDENTITY|TOKEN|CREDENTIALS)_\w+ = "(\w+)"', text, re.MULTILINE))
            found |= set(re.findall(r'\.(?:end|move)_\w+\((?:[^()"]|\([^()]*\))*"(\w+)"\)', text))
    for path in (GATEWAY / "fleet").glob("*.py"):
        found |= set(re.findall(r'_count\("\w+", "(\w+)"', path.read_text(encoding="utf-8")))
    for path in (GATEWAY / "bridge").glob("*.py"):
        found |= set(re.findall(r'\.add\("\w+", "(bridge_\w+)"\)', path.read_text(encoding="utf-8")))
    found |= {"bridge_qos_0", "bridge_violation"}  # counted where the bridge is put together
    for reason in re.findall(r'\bon_dropped\(\w+, "(\w+)"', "".join(NATIVE)):
        found |= {reason, f"unattributed_{reason}"}
    found.add(replica.DISCONNECTED)
    return found - {""}


def explained() -> list[str]:
    """The reasons in the first columns of the document's tables, in their order."""
    text = (ROOT / "docs" / "reasons.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    return [reason for row in rows for reason in re.findall(r"`(\w+)`", row)]


def test_each_reason_is_explained_once_and_nothing_else_is() -> None:
    documented = explained()
    assert sorted(documented) == sorted(set(documented))
    assert counted() - set(documented) == set(), "not in docs/reasons.md"
    assert set(documented) - counted() == set(), "not in the code"

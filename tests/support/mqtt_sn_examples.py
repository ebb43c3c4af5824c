"""Messages of clients by the tables of MQTT-SN 1.2, section 5.4: bytes, message type, and the fields that are read."""

from typing import Any

EXAMPLES: list[tuple[str, int, dict[str, Any]]] = [
    ("03 01 00", 0x01, {}),  # Table 7, SEARCHGW
    (
        "09 04 0c 01 003c 646576",
        0x04,
        {"flags": 12, "return_code": 1, "duration": 60, "text": b"dev"},
    ),  # Table 9
    ("07 07 30 612f62 63", 0x07, {"empty": False, "flags": 0x30, "text": b"a/bc"}),  # Table 12
    ("02 07", 0x07, {"empty": True, "flags": 0, "text": b""}),
    ("05 09 627965", 0x09, {"text": b"bye"}),  # Table 13
    ("02 09", 0x09, {"text": b""}),
    ("08 0a 0000 0102 61 62", 0x0A, {"message_id": 0x102, "text": b"ab"}),  # Table 14, REGISTER
    ("07 0b 0001 0102 00", 0x0B, {"topic_id": 1, "message_id": 0x102, "return_code": 0}),  # Table 15, REGACK
    (
        "09 0c 21 0005 0007 7b7d",
        0x0C,
        {"flags": 0x21, "topic_id": 5, "message_id": 7, "text": b"{}"},
    ),  # Table 16
    ("07 0c 62 6162 0000", 0x0C, {"flags": 0x62, "topic_id": 0x6162, "message_id": 0, "text": b""}),
    ("07 0d 0005 0007 02", 0x0D, {"topic_id": 5, "message_id": 7, "return_code": 2}),  # Table 17, PUBACK
    ("04 0e 0007", 0x0E, {"message_id": 7}),  # Table 18
    ("04 0f 0007", 0x0F, {"message_id": 7}),
    ("04 10 0007", 0x10, {"message_id": 7}),
    ("08 12 20 0009 612f23", 0x12, {"flags": 0x20, "message_id": 9, "text": b"a/#"}),  # Table 19
    ("07 12 01 0009 0005", 0x12, {"flags": 1, "message_id": 9, "text": b"\0\5"}),
    ("07 14 02 0009 6162", 0x14, {"flags": 2, "message_id": 9, "text": b"ab"}),
    ("05 16 646576", 0x16, {"text": b"dev"}),  # Table 22
    ("02 16", 0x16, {"text": b""}),
    ("02 17", 0x17, {}),  # Table 23
    ("02 18", 0x18, {"empty": True, "duration": 0}),  # Table 24
    ("04 18 0e10", 0x18, {"empty": False, "duration": 3600}),
    ("04 1a 00 61", 0x1A, {"empty": False, "flags": 0, "text": b"a"}),  # Table 25
    ("02 1a", 0x1A, {"empty": True, "flags": 0, "text": b""}),
    ("03 1c 61", 0x1C, {"text": b"a"}),  # Table 26
]
"""Bytes in hexadecimal, message type, fields."""

VECTORS = [vector for vector, _, _ in EXAMPLES]

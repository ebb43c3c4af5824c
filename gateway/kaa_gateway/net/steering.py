"""Lets the kernel hand a datagram of encrypted KP/UDP to the worker whose number its connection ID begins with.

The sockets of the workers share a port. A program in the kernel looks at each datagram and returns the number of a
socket in the order in which they were bound. For a datagram without a connection ID it returns a number that no socket
has, and then the kernel chooses by its hash of the addresses. A header of the PROXY protocol in front is skipped.

Source: socket(7), SO_ATTACH_REUSEPORT_CBPF; docs/kp-over-udp-secure.md, "Datagrams"; the PROXY protocol, section 2.2.
"""

from __future__ import annotations

import ctypes
import socket
import struct

SO_ATTACH_REUSEPORT_CBPF = 51
"""In <asm-generic/socket.h>; the module `socket` has no name for it."""

# Instructions of classic BPF, in <linux/bpf_common.h>
LOAD_WORD = 0x20
LOAD_HALF = 0x28
LOAD_BYTE_AT_INDEX = 0x50
LOAD_LENGTH = 0x80
LOAD_INDEX = 0x01
ADD = 0x04
TO_INDEX = 0x07
JUMP_IF_EQUAL = 0x15
JUMP_IF_GREATER = 0x25
JUMP_IF_AT_LEAST = 0x35
RETURN = 0x06
RETURN_VALUE = 0x16

PROXY_SIGNATURE = 0x0D0A0D0A
"""The first four bytes of a header of the PROXY protocol."""
PROXY_LENGTH_OFFSET = 14
PROXY_FIXED_SIZE = 16
FIRST_BYTE = 0xB2
TYPES_WITH_ID = (3, 5)
"""The first and the last type of a datagram of a device with a connection ID; PATH_PROOF is another."""
PATH_PROOF = 8
BY_HASH = 0xFFFFFFFF
SIZE_MIN = PROXY_FIXED_SIZE
"""Bytes that every datagram with a connection ID has, and every one with a header of the PROXY protocol."""

PROGRAM = (
    (LOAD_LENGTH, 0, 0, 0),
    (JUMP_IF_AT_LEAST, 0, 14, SIZE_MIN),
    (LOAD_INDEX, 0, 0, 0),
    (LOAD_WORD, 0, 0, 0),
    (JUMP_IF_EQUAL, 0, 3, PROXY_SIGNATURE),
    (LOAD_HALF, 0, 0, PROXY_LENGTH_OFFSET),
    (ADD, 0, 0, PROXY_FIXED_SIZE),
    (TO_INDEX, 0, 0, 0),
    # A load behind the end of the datagram returns 0 from the program: any worker will do for such a datagram.
    (LOAD_BYTE_AT_INDEX, 0, 0, 0),
    (JUMP_IF_EQUAL, 0, 6, FIRST_BYTE),
    (LOAD_BYTE_AT_INDEX, 0, 0, 1),
    (JUMP_IF_EQUAL, 2, 0, PATH_PROOF),
    (JUMP_IF_AT_LEAST, 0, 3, TYPES_WITH_ID[0]),
    (JUMP_IF_GREATER, 2, 0, TYPES_WITH_ID[1]),
    (LOAD_BYTE_AT_INDEX, 0, 0, 2),
    (RETURN_VALUE, 0, 0, 0),
    (RETURN, 0, 0, BY_HASH),
)
"""(instruction, forward if true, forward if false, operand); in the index stands where KP/UDP begins."""


def attach(member: socket.socket) -> None:
    """Steer the datagrams of all sockets that share the port of `member`. Raises OSError if the kernel cannot."""
    instructions = b"".join(struct.pack("=HBBI", *each) for each in PROGRAM)
    memory = ctypes.create_string_buffer(instructions)
    program = struct.pack("@HP", len(PROGRAM), ctypes.addressof(memory))
    member.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, program)

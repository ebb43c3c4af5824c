"""The table of UDP peers against a dict: what is added is found, until it is removed, whatever collides with it.

The methods of the table are native. They are called here through the table of functions that Cython makes for a class.
"""

import ctypes
import gc
import ipaddress
import random
import socket
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kaa_gateway.net.addresses import AddressTable


class Address(ctypes.Structure):
    """As in addresses.pxd."""

    _fields_ = (("bytes", ctypes.c_uint8 * 28), ("local", ctypes.c_uint8 * 16), ("size", ctypes.c_uint))


class Functions(ctypes.Structure):
    """The first native methods of AddressTable, in the order of addresses.pxd."""

    _fields_ = (
        ("find", ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object, ctypes.POINTER(Address))),
        (
            "add",
            ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(Address), ctypes.py_object),
        ),
        ("remove", ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(Address))),
    )


def _functions() -> Any:
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype = ctypes.c_void_p
    pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    return Functions.from_address(pointer(AddressTable.__dict__["__pyx_vtable__"], None))


FUNCTIONS = _functions()


def address(host: str, port: int, local: str = "") -> Address:
    """Return the address of a peer as a socket gives it, and the one of ours that it has sent to."""
    packed = ipaddress.ip_address(host).packed
    if len(packed) == 4:
        sockaddr = struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + packed + bytes(8)
    else:
        sockaddr = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0) + packed + bytes(4)
    result = Address(size=len(sockaddr))
    ctypes.memmove(result.bytes, sockaddr, len(sockaddr))
    if local:
        ours = ipaddress.ip_address(local).packed
        ctypes.memmove(result.local, ours, len(ours))
    return result


def add(table: Any, key: Address, value: object) -> None:
    FUNCTIONS.add(table, key, value)


def find(table: Any, key: Address) -> Any:
    return FUNCTIONS.find(table, key)


def remove(table: Any, key: Address) -> None:
    FUNCTIONS.remove(table, key)


def test_an_address_is_found_until_it_is_removed() -> None:
    table = AddressTable()
    peer = address("192.0.2.1", 5683)
    assert (find(table, peer), table.count) == (None, 0)
    add(table, peer, "value")
    assert (find(table, address("192.0.2.1", 5683)), table.count) == ("value", 1)
    remove(table, peer)
    assert (find(table, peer), table.count) == (None, 0)
    with pytest.raises(KeyError):
        remove(table, peer)


def test_each_part_of_an_address_tells_peers_apart() -> None:
    keys = [
        address("192.0.2.1", 5683),
        address("192.0.2.2", 5683),
        address("192.0.2.1", 5684),
        address("2001:db8::1", 5683),
        address("2001:db8::2", 5683),
        address("::ffff:192.0.2.1", 5683),
        address("192.0.2.1", 5683, "198.51.100.1"),
        address("192.0.2.1", 5683, "198.51.100.2"),
        address("2001:db8::1", 5683, "2001:db8::f"),
    ]
    table = AddressTable()
    for number, key in enumerate(keys):
        assert find(table, key) is None
        add(table, key, number)
    assert [find(table, key) for key in keys] == list(range(len(keys)))
    remove(table, keys[0])
    assert [find(table, key) for key in keys] == [None, *range(1, len(keys))]


@settings(max_examples=100)
@given(steps=st.lists(st.integers(0, 99), max_size=400), seed=st.integers(0, 2**32))
def test_it_is_a_dict(steps: list[int], seed: int) -> None:
    """Up to 48 of 64 slots are used, so that there are long rows of entries, and gaps in them to close."""
    keys = [address("198.51.100.7", 1024 + number) for number in range(100)]
    order = random.Random(seed)
    table, model = AddressTable(), dict[int, object]()
    for number in steps:
        if number in model:
            remove(table, keys[number])
            del model[number]
        else:
            if len(model) == 48:
                gone = order.choice(list(model))
                remove(table, keys[gone])
                del model[gone]
            add(table, keys[number], value := object())
            model[number] = value
        assert table.count == len(model)
    assert [find(table, key) for key in keys] == [model.get(number) for number in range(100)]


def test_it_grows_and_empties() -> None:
    """Past each size at which it is made larger; all are found after each removal that closes a gap."""
    table = AddressTable()
    keys = [address(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 5683) for number in range(3000)]
    for number, key in enumerate(keys):
        add(table, key, number)
        assert find(table, keys[number // 2]) == number // 2
    assert [find(table, key) for key in keys] == list(range(3000))
    order = random.Random(1)
    left = list(range(3000))
    order.shuffle(left)
    while left:
        remove(table, keys[left.pop()])
        if len(left) % 500 == 0:
            there = set(left)
            assert [find(table, key) for key in keys] == [n if n in there else None for n in range(3000)]
    assert table.count == 0


def test_two_tables_hash_by_keys_of_their_own() -> None:
    """A sender that finds addresses which collide in one process has found nothing about another."""
    positions = []
    for _ in range(2):
        table = AddressTable()
        for number in range(16):
            add(table, address("192.0.2.1", number + 1), number)
        positions.append([number for number in _values(table) if number is not None])
    assert positions[0] != positions[1]


def _values(table: Any) -> list[Any]:
    """Return the values of a table in the order of its slots."""
    return next(each for each in gc.get_referents(table) if isinstance(each, list))

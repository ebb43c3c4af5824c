"""Addresses of UDP peers, and a table of values by address.

What lives here: the address as a struct and as bytes, and the table, whose look-ups make no object. What does not: how
many entries there may be, which is the protocol's to bound.
"""

import secrets

from libc.string cimport memcmp, memcpy

cdef enum:
    SLOTS_AT_FIRST = 64
    WORDS = sizeof(Address) // 8


cdef struct Slot:
    # Valid where the slot has a value.
    uint64_t hash
    Address address


cdef bytes address_key(const Address* address):
    """Return the bytes that tell a peer from all others; its sockaddr is at their front.

    Our own address is one of them: a peer that sends to two addresses of ours talks to two endpoints (RFC 7252 section
    4.4; RFC 6347 has an association between two hosts and ports).
    """
    return (<const uint8_t*>address)[:KEY_SIZE]


cdef class AddressTable:
    """Values by address: open addressing with linear probing. The hash is keyed, because senders choose addresses."""

    def __init__(self):
        self.secret[0] = secrets.randbits(64)
        self.secret[1] = secrets.randbits(64) | 1
        self.values = [None] * SLOTS_AT_FIRST
        self.slots = Buffer()
        self.slots.reserve(SLOTS_AT_FIRST * sizeof(Slot))

    cdef uint64_t hash_of(self, const Address* address) noexcept:
        """Return the keyed hash of an address. Hot path."""
        cdef uint64_t[WORDS] words
        cdef uint64_t result = self.secret[0]
        cdef int i
        memcpy(words, address, sizeof(words))
        for i in range(WORDS):
            result = (result ^ words[i]) * self.secret[1]
            result ^= result >> 32
        return result

    cdef Py_ssize_t slot_of(self, const Address* address, uint64_t hash) noexcept:
        """Return the slot of an address, or the free one where it would go. Hot path."""
        cdef const Slot* slots = <const Slot*>self.slots.data
        cdef Py_ssize_t mask = len(self.values) - 1, at = <Py_ssize_t>(hash & <uint64_t>mask)
        while self.values[at] is not None and (
                slots[at].hash != hash or memcmp(&slots[at].address, address, sizeof(Address)) != 0):
            at = (at + 1) & mask
        return at

    cdef object find(self, const Address* address):
        """Return the value of an address, or None. Hot path."""
        return self.values[self.slot_of(address, self.hash_of(address))]

    cdef int add(self, const Address* address, value) except -1:
        """Add the value of an address that has none."""
        cdef Slot* slot
        cdef uint64_t hash
        cdef Py_ssize_t at
        if 4 * (self.count + 1) > 3 * len(self.values):
            self.resize(2 * len(self.values))
        hash = self.hash_of(address)
        at = self.slot_of(address, hash)
        slot = &(<Slot*>self.slots.data)[at]
        slot.hash = hash
        slot.address = address[0]
        self.values[at] = value
        self.count += 1
        return 0

    cdef int remove(self, const Address* address) except -1:
        """Remove the value of an address that has one."""
        cdef Slot* slots = <Slot*>self.slots.data
        cdef Py_ssize_t mask = len(self.values) - 1, free = self.slot_of(address, self.hash_of(address)), at = free
        if self.values[free] is None:
            raise KeyError(address_key(address))
        self.values[free] = None
        self.count -= 1
        # Entries behind it close the gap, so that a probe which begins before it still finds them.
        while True:
            at = (at + 1) & mask
            if self.values[at] is None:
                return 0
            if (at - <Py_ssize_t>(slots[at].hash & <uint64_t>mask)) & mask < (at - free) & mask:
                continue  # its probe begins behind the gap
            slots[free] = slots[at]
            self.values[free] = self.values[at]
            self.values[at] = None
            free = at

    cdef int resize(self, Py_ssize_t size) except -1:
        """Move all values into a table of `size` slots."""
        cdef Buffer former_slots = self.slots
        cdef list former_values = self.values
        cdef const Slot* slots = <const Slot*>former_slots.data
        cdef Py_ssize_t at, i
        self.slots = Buffer()
        self.slots.reserve(size * <Py_ssize_t>sizeof(Slot))
        self.values = [None] * size
        for i in range(len(former_values)):
            if former_values[i] is not None:
                at = self.slot_of(&slots[i].address, slots[i].hash)
                (<Slot*>self.slots.data)[at] = slots[i]
                self.values[at] = former_values[i]
        return 0

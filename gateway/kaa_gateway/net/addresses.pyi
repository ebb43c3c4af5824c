"""Addresses of UDP peers. See addresses.pyx."""

class AddressTable:
    count: int

    def __init__(self) -> None: ...

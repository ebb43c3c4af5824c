"""Sessions that go from worker to worker. See transfers.pyx."""

class Transfers:
    sessions: dict[str, int]
    messages: dict[str, int]

"""The fault proxies of the soak, for tests."""

from bench.soak.datagram_proxy import DatagramProxy, Faults
from bench.soak.proxy import FaultProxy, Stream, Way

__all__ = ["DatagramProxy", "FaultProxy", "Faults", "Stream", "Way"]

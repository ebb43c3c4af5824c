"""The fault proxies of the soak, for tests."""

from kaa_bench.soak.datagram_proxy import DatagramProxy, Faults
from kaa_bench.soak.proxy import FaultProxy, Stream, Way

__all__ = ["DatagramProxy", "FaultProxy", "Faults", "Stream", "Way"]

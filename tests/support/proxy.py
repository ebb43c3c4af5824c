"""The fault proxy of the soak, for tests."""

from bench.soak.proxy import FaultProxy, Stream, Way

__all__ = ["FaultProxy", "Stream", "Way"]

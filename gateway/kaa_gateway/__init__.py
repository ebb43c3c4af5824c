"""The Kaa device gateway: device protocols on one side, 4/ESP over NATS on the other."""

__version__ = "0.1.0"

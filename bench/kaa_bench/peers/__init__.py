"""The servers that the gateway is compared with, and a reference client of KP/UDP."""

"""KP/UDP, the compact datagram protocol of docs/kp-over-udp.md."""

"""Sockets, TLS, DTLS, WebSocket and admission; no device protocol."""

"""WebSocket frames. See websocket.pyx."""

FORMAT_REASONS: tuple[str, ...]

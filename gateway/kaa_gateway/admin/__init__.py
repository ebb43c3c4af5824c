"""Management: health and metrics over HTTP, on a port of its own."""

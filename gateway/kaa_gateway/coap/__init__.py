"""CoAP (RFC 7252) with Observe (RFC 7641) and Block-Wise Transfers (RFC 7959)."""

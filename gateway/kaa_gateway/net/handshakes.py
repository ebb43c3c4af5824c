"""Failed handshakes of TLS and DTLS: a reason code for each error of OpenSSL, and a log with a limited rate.

Every failure is counted (`kaa_gateway_events_total{event="closed"}`); only the lines of the log are limited.
"""

from __future__ import annotations

import ssl
from typing import NamedTuple

import structlog

log = structlog.get_logger("gateway.transports")

LINES_PER_PERIOD = 20
PERIOD = 10.0
"""Seconds in which at most LINES_PER_PERIOD lines are written."""

VERIFICATION_REASONS = {
    2: "tls_unknown_ca",  # X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT
    3: "tls_no_revocation_list",  # X509_V_ERR_UNABLE_TO_GET_CRL
    9: "tls_certificate_not_yet_valid",  # X509_V_ERR_CERT_NOT_YET_VALID
    10: "tls_certificate_expired",  # X509_V_ERR_CERT_HAS_EXPIRED
    12: "tls_revocation_list_expired",  # X509_V_ERR_CRL_HAS_EXPIRED
    18: "tls_unknown_ca",  # X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
    19: "tls_unknown_ca",  # X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN
    20: "tls_unknown_ca",  # X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
    21: "tls_unknown_ca",  # X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE
    23: "tls_certificate_revoked",  # X509_V_ERR_CERT_REVOKED
}
"""Reason codes by verification code of OpenSSL (x509_vfy.h); any other is `tls_certificate_rejected`."""

OTHER_REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "tls_no_certificate",
    "NO_SHARED_CIPHER": "tls_no_shared_cipher",
    "UNSUPPORTED_PROTOCOL": "tls_version",
    "VERSION_TOO_LOW": "tls_version",
    "WRONG_VERSION_NUMBER": "tls_version",
}
"""Reason codes by reason of an SSLError. A client that refuses our certificate sends an alert: `tls_alert`."""


class Failure(NamedTuple):
    """The reason why a handshake failed."""

    reason: str
    """Our reason code."""
    detail: str
    """OpenSSL's words, for the log."""


def verification_reason(code: int) -> str:
    """Return the reason code for a verification code of OpenSSL."""
    return VERIFICATION_REASONS.get(code, "tls_certificate_rejected")


def failure(error: ssl.SSLError) -> Failure:
    """Return why a handshake failed with this error."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Failure(verification_reason(error.verify_code), error.verify_message)
    return Failure(other_reason(error.reason), (error.reason or str(error)).replace("_", " ").lower())


def other_reason(said: str | None) -> str:
    """Return the reason code for an error that is not about the client's certificate."""
    words = (said or "").upper().replace(" ", "_")
    if "_ALERT_" in words:
        return "tls_alert"
    return OTHER_REASONS.get(words, "tls_handshake_failed")


class HandshakeLog:
    """Logs the failed handshakes of one listener, with at most LINES_PER_PERIOD lines in PERIOD."""

    def __init__(self, protocol: str) -> None:
        self._protocol = protocol
        self._period_end = 0.0
        self._lines = 0
        self._suppressed = 0

    def failed(self, reason: str, detail: str, peer: str, now: float) -> None:
        """Log that a handshake with `peer` has failed. `now` is the loop's time."""
        if now >= self._period_end:
            if self._suppressed:
                log.warning("more handshakes failed", protocol=self._protocol, count=self._suppressed)
            self._period_end = now + PERIOD
            self._lines = self._suppressed = 0
        if self._lines == LINES_PER_PERIOD:
            self._suppressed += 1
            return
        self._lines += 1
        log.info("handshake failed", protocol=self._protocol, reason=reason, detail=detail, peer=peer)

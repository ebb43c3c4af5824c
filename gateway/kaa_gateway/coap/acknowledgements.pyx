"""What becomes of the confirmable messages to a CoAP peer: acknowledged, rejected, sent again, or given up.

Source: RFC 7252 section 4.2; RFC 7641 section 4.5.
"""

from kaa_gateway.coap.observations cimport Observation

from kaa_gateway.bus.push_receipts import DELIVERED, DROPPED


cdef int receive_acknowledgement(CoapPeer peer, uint16_t message_id, double now) except -1:
    """Handle an ACK. One for our message ID proves that the peer receives at its address."""
    cdef Transmission transmission = peer.outbox.transmissions.get(message_id)
    if transmission is None:
        return 0
    peer.outbox.verify_address(now)
    if transmission.receipt is not None:
        transmission.receipt.end(DELIVERED, None)
    peer.outbox.end_transmission(transmission)
    return 0 if transmission.observation is None else peer.observer.send_queued(transmission.observation)


cdef int receive_reset(CoapPeer peer, uint16_t message_id) except -1:
    """Handle an RST: the peer rejects a message of ours, which ends the observation that it belongs to."""
    cdef Transmission transmission = peer.outbox.transmissions.get(message_id)
    return 0 if transmission is None else give_up(peer, transmission, "coap_reset_by_device")


cdef int retransmit(CoapPeer peer, Transmission transmission, double now) except -1:
    """Send a confirmable message that is due again, or give it up. The timer has let go of it."""
    if peer.outbox.transmissions.get(transmission.message_id) is not transmission:
        return 0  # it was acknowledged or given up meanwhile
    return 0 if peer.outbox.retransmit(transmission, now) else give_up(peer, transmission, "coap_unacknowledged")


cdef int send_held(CoapPeer peer, double now) except -1:
    """Send what was held, as far as it may be sent now: the peer has sent something, or its address is verified."""
    peer.outbox.send_held(now)
    return peer.observer.send_all_queued()


cdef int give_up(CoapPeer peer, Transmission transmission, str reason) except -1:
    """End a transmission that the peer has rejected or never acknowledged, and its observation with it."""
    cdef Observation observation = transmission.observation
    if transmission.receipt is not None:
        transmission.receipt.end(DROPPED, reason)
    peer.outbox.end_transmission(transmission)
    if observation is None:
        return 0
    peer.context.counters.count("closed", "coap_observer_gone")
    return peer.observer.remove(observation)

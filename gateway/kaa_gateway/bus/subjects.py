"""NATS subject names of 3/ISM and 4/ESP, and the names that may stand in them.

Source: 3/ISM "Inter-Service Messaging". A name that becomes a subject token comes from configuration, never from a
device, and matches `NAME`: no dots, wildcards, white space or control characters.
"""

import re

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,127}\Z")
"""What a service instance name, extension instance name or replica ID may look like: one NATS subject token."""

CLIENT_DATA = "ClientData"
EXTENSION_DATA = "ExtensionData"

REPLY_TO_HEADER = "Kaa-Reply-To"
"""The header of a durable ClientData that carries the reply-to of 4/ESP; its own reply-to is JetStream's."""


def service(instance: str, protocol: str, message_type: str) -> str:
    """Return the subject of a targeted message to any replica of a service instance."""
    return f"kaa.v1.service.{instance}.{protocol}.{message_type}"


def replica(replica_id: str, protocol: str, message_type: str) -> str:
    """Return the subject of a targeted message to one replica."""
    return f"kaa.v1.replica.{replica_id}.{protocol}.{message_type}"


def event(originator_instance: str, entity_type: str, event_group: str, event_type: str) -> str:
    """Return the subject of a broadcast event."""
    return f"kaa.v1.events.{originator_instance}.{entity_type}.{event_group}.{event_type}"


def stream(extension_instance: str) -> str:
    """Return the name of the stream that holds a durable extension instance's ClientData, and of its consumer."""
    return f"kaa-{extension_instance}"


def jetstream(domain: str | None, subject: str) -> str:
    """Return a subject of JetStream's API, without `$JS.API`, or of a key-value bucket, in a domain."""
    if domain is not None:
        return f"$JS.{domain}.API.{subject}"
    return subject if subject.startswith("$KV.") else f"$JS.API.{subject}"


def with_message_type(subject: str, message_type: str) -> str:
    """Return the subject with its last token replaced, as 3/ISM answers a reply-to with another message type."""
    return f"{subject.rpartition('.')[0]}.{message_type}"

"""The keys of service-config.yml: their names, types, bounds, defaults and what each is for.

What lives here: one module for each part of the file, and one struct for each section. A field is a key
(`max_packet_size` is `max-packet-size`). Its `Meta` has the bounds, and the sentence that docs/configuration.md shows.
Nothing else declares a key. KPC's keys are those of its public documentation; the others are ours. What does not live
here: reading (`kaa_gateway.config.sources`), and what several keys must agree on (`kaa_gateway.config.cross_checks`).
"""

from kaa_gateway.config.keys.applications import Application, ApplicationVersion, ExtensionInstanceKeys
from kaa_gateway.config.keys.bridge import Bridge, BridgeMapping
from kaa_gateway.config.keys.coap import Coap, CoapDtls, CoapTcp, CoapTls, CoapWebSocket, CoapWebSocketTls
from kaa_gateway.config.keys.diagnostics import Log, Tracing
from kaa_gateway.config.keys.document import Document, Kaa, Kpc
from kaa_gateway.config.keys.durable import Durable
from kaa_gateway.config.keys.events import Events
from kaa_gateway.config.keys.http import Http, HttpTls
from kaa_gateway.config.keys.identity import Clients, Ecap, IdentitySettings, StaticIdentity
from kaa_gateway.config.keys.limits import Limits
from kaa_gateway.config.keys.mqtt import Mqtt, MqttTcp, MqttTls, MqttWebSocket, WebSocketTls
from kaa_gateway.config.keys.mqtt_sn import MqttSn, MqttSnDtls
from kaa_gateway.config.keys.nats import Nats, NatsTls
from kaa_gateway.config.keys.protocols import PluginProtocol
from kaa_gateway.config.keys.proxy import Proxy
from kaa_gateway.config.keys.quotas import EndpointQuota, Quota, QuotaStore
from kaa_gateway.config.keys.service import Instance, Replica, Server, Service
from kaa_gateway.config.keys.tenants import Tenant, TenantCertificates
from kaa_gateway.config.keys.tls import (
    DATAGRAM_CIPHERS,
    STREAM_CIPHERS,
    DatagramTls,
    ServerTls,
    StreamTls,
    TenantTls,
)
from kaa_gateway.config.keys.transports import Transports
from kaa_gateway.config.keys.udp import SecureUdp, Udp

__all__ = [
    "DATAGRAM_CIPHERS",
    "STREAM_CIPHERS",
    "Application",
    "ApplicationVersion",
    "Bridge",
    "BridgeMapping",
    "Clients",
    "Coap",
    "CoapDtls",
    "CoapTcp",
    "CoapTls",
    "CoapWebSocket",
    "CoapWebSocketTls",
    "DatagramTls",
    "Document",
    "Durable",
    "Ecap",
    "EndpointQuota",
    "Events",
    "ExtensionInstanceKeys",
    "Http",
    "HttpTls",
    "IdentitySettings",
    "Instance",
    "Kaa",
    "Kpc",
    "Limits",
    "Log",
    "Mqtt",
    "MqttSn",
    "MqttSnDtls",
    "MqttTcp",
    "MqttTls",
    "MqttWebSocket",
    "Nats",
    "NatsTls",
    "PluginProtocol",
    "Proxy",
    "Quota",
    "QuotaStore",
    "Replica",
    "SecureUdp",
    "Server",
    "ServerTls",
    "Service",
    "StaticIdentity",
    "StreamTls",
    "Tenant",
    "TenantCertificates",
    "TenantTls",
    "Tracing",
    "Transports",
    "Udp",
    "WebSocketTls",
]

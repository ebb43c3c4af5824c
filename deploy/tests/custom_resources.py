"""Schemas of the kinds of manifests that Kubernetes itself does not have: those parts that the chart uses."""

from typing import Any

LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
METADATA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "labels": LABELS},
}
DURATION = {"type": "string", "pattern": r"^(0|(\d+y)?(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?)$"}
ENDPOINTS = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "additionalProperties": False,
        "properties": {"port": {"type": "string"}, "path": {"type": "string"}, "interval": DURATION},
    },
}
SELECTOR = {
    "type": "object",
    "additionalProperties": False,
    "required": ["matchLabels"],
    "properties": {"matchLabels": LABELS},
}
PATHS = {
    "type": "array",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "path": {
                "type": "object",
                "additionalProperties": False,
                "properties": {"type": {"const": "PathPrefix"}, "value": {"type": "string", "pattern": "^/"}},
            }
        },
    },
}
ROUTE_RULE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["matches", "backendRefs"],
    "properties": {
        "matches": PATHS,
        "backendRefs": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "port"],
                "properties": {"name": {"type": "string"}, "port": {"type": "integer"}},
            },
        },
    },
}
ALERT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["alert", "expr"],
    "properties": {
        "alert": {"type": "string"},
        "expr": {"type": "string"},
        "for": DURATION,
        "labels": LABELS,
        "annotations": LABELS,
    },
}


def kind_of(api: str, required: list[str], properties: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a kind with these properties in its spec."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"const": api},
            "kind": {"type": "string"},
            "metadata": METADATA,
            "spec": {
                "type": "object",
                "additionalProperties": False,
                "required": required,
                "properties": properties,
            },
        },
    }


MONITORING = "monitoring.coreos.com/v1"
CUSTOM = {
    "ServiceMonitor": kind_of(
        MONITORING, ["endpoints", "selector"], {"selector": SELECTOR, "endpoints": ENDPOINTS}
    ),
    "PodMonitor": kind_of(MONITORING, ["selector"], {"selector": SELECTOR, "podMetricsEndpoints": ENDPOINTS}),
    "PrometheusRule": kind_of(
        MONITORING,
        ["groups"],
        {
            "groups": {
                "type": "array",
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["name", "rules"],
                    "properties": {"name": {"type": "string"}, "rules": {"type": "array", "items": ALERT}},
                },
            }
        },
    ),
    "HTTPRoute": kind_of(
        "gateway.networking.k8s.io/v1",
        ["parentRefs", "rules"],
        {
            "parentRefs": {"type": "array", "items": {"type": "object", "required": ["name"]}},
            "hostnames": {"type": "array", "items": {"type": "string"}},
            "rules": {"type": "array", "items": ROUTE_RULE},
        },
    ),
}

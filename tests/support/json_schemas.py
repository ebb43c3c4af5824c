"""The JSON schemas of the extension protocols, restated without their descriptions, to validate what devices see.

Beside a copy of the RFCs a test holds the two equal (tests/unit/ext/messages/test_schemas.py).

Source: 1/KP, 2/DCP, 7/CMP, 10/EPMP and 11/CEP, `*.schema.json`; the keys are the RFC's file names. Where 11/CEP's
text and its schema differ (an array of results, or one), both are served.
"""

from typing import Any

import jsonschema

SCHEMAS: dict[str, dict[str, Any]] = {
    "0001-error-response": {
        "type": "object",
        "properties": {"statusCode": {"type": "integer"}, "reasonPhrase": {"type": "string"}},
        "required": ["statusCode", "reasonPhrase"],
        "additionalProperties": False,
    },
    "0002-request": {"type": "array"},
    "0007-applied-request": {
        "type": "object",
        "properties": {
            "configId": {"type": "string"},
            "statusCode": {"type": "number"},
            "reasonPhrase": {"type": "string"},
        },
        "required": ["configId"],
        "additionalProperties": False,
    },
    "0007-config-request": {
        "type": "object",
        "properties": {"configId": {"type": "string"}, "observe": {"type": "boolean"}},
        "additionalProperties": False,
    },
    "0007-config-response": {
        "type": "object",
        "properties": {"configId": {"type": "string"}, "config": {}},
        "additionalProperties": False,
    },
    "0010-delete-metadata-keys-request": {
        "type": "array",
        "items": {"type": "string", "pattern": "^[a-zA-Z0-9_]+$"},
        "minItems": 1,
        "uniqueItems": True,
    },
    "0010-get-metadata-keys-response": {
        "type": "array",
        "items": {"type": "string", "pattern": "^[a-zA-Z0-9_]+$"},
        "uniqueItems": True,
    },
    "0010-get-metadata-request": {
        "type": "object",
        "properties": {
            "keys": {
                "type": "array",
                "items": {"type": "string", "pattern": "^[a-zA-Z0-9_]+$"},
                "uniqueItems": True,
            }
        },
        "additionalProperties": False,
    },
    "0010-get-metadata-response": {
        "type": "object",
        "patternProperties": {"^[a-zA-Z0-9_]+$": {}},
        "additionalProperties": False,
    },
    "0010-update-metadata-request": {
        "type": "object",
        "minProperties": 1,
        "patternProperties": {"^[a-zA-Z0-9_]+$": {}},
        "additionalProperties": False,
    },
    "0011-command-request": {
        "type": "object",
        "properties": {"observe": {"type": "boolean"}},
        "additionalProperties": False,
    },
    "0011-command-response": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"id": {"type": "integer"}, "payload": {}},
            "required": ["id"],
            "additionalProperties": False,
        },
    },
    "0011-result-request": {
        "type": "object",
        "properties": {
            "id": {"type": "integer"},
            "statusCode": {"type": "integer"},
            "reasonPhrase": {"type": "string"},
            "payload": {},
        },
        "required": ["id", "statusCode"],
        "additionalProperties": False,
    },
}


def validate(name: str, value: object) -> None:
    """Raise jsonschema.ValidationError if the value is not what the schema wants."""
    jsonschema.Draft4Validator(SCHEMAS[name]).validate(value)


def is_valid(name: str, value: object) -> bool:
    """Return whether the value is what the schema wants."""
    return bool(jsonschema.Draft4Validator(SCHEMAS[name]).is_valid(value))

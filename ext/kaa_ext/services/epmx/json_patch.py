"""Applies a JSON Patch to metadata. The library does the patch; here are its bounds and its errors.

Fractions keep their text: 1.10 does not become 1.1.

Source: RFC 6902 "JSON Patch".
"""

from decimal import Decimal
from typing import Any

import jsonpatch
import msgspec

from kaa_ext.sdk import payloads
from kaa_ext.sdk.errors import ExtensionError
from kaa_ext.services.epmx.metadata import SIZE_MAX, Metadata

OPERATIONS_MAX = 1000
"""Operations of one patch."""
COPIED_MAX = 2 * SIZE_MAX
"""Bytes that the `copy` operations of one patch copy. A copy costs time, also if it is removed again."""


class Fraction:
    """A JSON number with a fraction or an exponent. It equals every number of the same value, as `test` requires."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Fraction):
            return Decimal(self.text) == Decimal(other.text)
        return isinstance(other, int) and not isinstance(other, bool) and Decimal(self.text) == other

    def __hash__(self) -> int:
        return hash(Decimal(self.text))


_operations = payloads.decoder(list[dict[str, Any]], fraction=Fraction)
_decode = msgspec.json.Decoder(float_hook=Fraction).decode
_encode = msgspec.json.Encoder(enc_hook=lambda fraction: msgspec.Raw(fraction.text.encode())).encode


def patched(metadata: Metadata, patch: bytes) -> Metadata:
    """Return metadata with a patch applied. Values that it does not touch keep their JSON text.

    Raise ExtensionError: 400 for what is no patch of metadata, 409 if an operation cannot be done or a test fails, 413
    if the patch is too long or its result too large.
    """
    operations = _operations(patch)
    if len(operations) > OPERATIONS_MAX:
        raise ExtensionError(413, f"A patch has at most {OPERATIONS_MAX} operations")
    before, document = _decoded(metadata), _decoded(metadata)
    copied = 0
    try:
        for operation in operations:
            copied += _copied_size(operation, document)
            if copied > COPIED_MAX:
                raise ExtensionError(413, f"A patch copies at most {COPIED_MAX // 1024} KiB")
            document = jsonpatch.JsonPatch([operation]).apply(document, in_place=True)
    except (jsonpatch.JsonPatchConflict, jsonpatch.JsonPatchTestFailed) as error:
        raise ExtensionError(
            409, "An operation of the patch cannot be done, or a test in it fails"
        ) from error
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError, RecursionError) as error:
        raise ExtensionError(400, "Not a JSON Patch (RFC 6902)") from error
    if not isinstance(document, dict):
        raise ExtensionError(400, "Metadata are a JSON object")
    return {
        key: metadata[key] if key in before and _is_same(before[key], value) else _raw(value)
        for key, value in document.items()
    }


def _copied_size(operation: dict[str, Any], document: Any) -> int:
    """Return the bytes of the value that an operation copies; 0 if it copies none."""
    if operation.get("op") != "copy":
        return 0
    try:
        parent, key = jsonpatch.JsonPointer(operation["from"]).to_last(document)
        value = parent if key is None else parent[key]
    except (LookupError, TypeError, jsonpatch.JsonPointerException):
        return 0  # the library says what is wrong
    return len(_encode(value))


def _decoded(metadata: Metadata) -> Any:
    return {key: _decode(bytes(value)) for key, value in metadata.items()}


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two values are the same JSON; in Python, true and 1 are equal."""
    return one is other or _encode(one) == _encode(other)


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(_encode(value))

"""Decodes JSON payloads to typed values and encodes values to JSON; errors have a reason for the device.

The reason names the byte or the field that is wrong. It repeats nothing of the payload except the name of a field.
"""

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

import msgspec

from kaa_ext.sdk.errors import ExtensionError

T = TypeVar("T")

_BYTE_POSITION = re.compile(r"\(byte (\d+)\)")
_encode = msgspec.json.Encoder().encode


def decoder(kind: type[T], *, fraction: Callable[[str], Any] | None = None) -> Callable[[bytes], T]:
    """Return a function that decodes a JSON payload to this type. It raises ExtensionError 400 for a wrong payload.

    For a struct, an empty payload is an object without fields: 1/KP allows it where no field is required. `fraction`
    makes the value of a number with a fraction or an exponent from its text, where no type is given.
    """
    decode = msgspec.json.Decoder(kind, float_hook=fraction).decode
    empty = b"{}" if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else b""

    def decode_payload(payload: bytes) -> T:
        try:
            if not payload.isascii():
                payload.decode()
            return decode(payload or empty)
        except UnicodeDecodeError as error:
            raise ExtensionError(400, f"Invalid UTF-8 at byte {error.start}") from error
        except msgspec.ValidationError as error:
            raise ExtensionError(400, _sentence(str(error))) from error
        except msgspec.DecodeError as error:
            if not payload:
                raise ExtensionError(400, "Empty payload") from error
            position = _BYTE_POSITION.search(str(error))
            # Only the error for a text that ends too early has no position.
            at = position[1] if position else len(payload)
            raise ExtensionError(400, f"Invalid JSON at byte {at}") from error
        except RecursionError as error:
            raise ExtensionError(400, "JSON is nested too deep") from error

    return decode_payload


def encode(value: object) -> bytes:
    """Return a value as JSON."""
    return _encode(value)


def compact(payload: bytes) -> bytes:
    """Return a JSON text without white space. Numbers are not rounded and keys are not sorted.

    Raise ExtensionError 400 if it is not JSON.
    """
    return msgspec.json.format(bytes(_decode_any(payload)), indent=-1)


_decode_any = decoder(msgspec.Raw)


def payload_type(function: Callable[..., Any]) -> Any | None:
    """Return the annotated type of a handler's second parameter, which its payload is decoded to; None without one.

    Raise TypeError for a handler whose parameters are not (request) or (request, body: <type>).
    """
    name = getattr(function, "__qualname__", repr(function))
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) == 1:
        return None
    if len(parameters) == 2:
        try:
            kind = get_type_hints(function).get(parameters[1].name)
        except NameError as error:
            raise TypeError(f"handler {name}: {error}; the type must be defined at module level") from error
        if kind is not None:
            return kind
    raise TypeError(f"handler {name}: expected parameters (request) or (request, body: <type>)")


def _sentence(message: str) -> str:
    """Return a message of msgspec without its back quotes, and with paths as `a` instead of `$.a`."""
    return message.replace("`$.", "`").replace("`", "")

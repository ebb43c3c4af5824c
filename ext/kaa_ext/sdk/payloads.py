"""JSON payloads to typed values and back, for handlers and services; what is wrong is said to the device.

A reason names the byte or the field that is wrong, and never echoes more of the payload than a field's name.
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


def decoder(kind: type[T]) -> Callable[[bytes], T]:
    """A function from a JSON payload to a value of this type; ExtensionError 400 says what is wrong with it.

    For a struct an empty payload stands for an object without fields: 1/KP allows it wherever nothing is required.
    """
    decode = msgspec.json.Decoder(kind).decode
    instead_of_nothing = b"{}" if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else b""

    def decode_payload(payload: bytes) -> T:
        try:
            if not payload.isascii():
                payload.decode()
            return decode(payload or instead_of_nothing)
        except UnicodeDecodeError as error:
            raise ExtensionError(400, f"Invalid UTF-8 at byte {error.start}") from error
        except msgspec.ValidationError as error:
            raise ExtensionError(400, _sentence(str(error))) from error
        except msgspec.DecodeError as error:
            if not payload:
                raise ExtensionError(400, "Empty payload") from error
            position = _BYTE_POSITION.search(str(error))
            # The one error without a position is that of a text which ends too early.
            at = position[1] if position else len(payload)
            raise ExtensionError(400, f"Invalid JSON at byte {at}") from error
        except RecursionError as error:
            raise ExtensionError(400, "JSON is nested too deep") from error

    return decode_payload


def encode(value: object) -> bytes:
    """A value as JSON."""
    return _encode(value)


def compact(payload: bytes) -> bytes:
    """A JSON text without its white space, otherwise as it is: numbers are not rounded, nor keys sorted.

    ExtensionError 400 if it is not JSON.
    """
    return msgspec.json.format(bytes(_decode_any(payload)), indent=-1)


_decode_any = decoder(msgspec.Raw)


def payload_type(function: Callable[..., Any]) -> Any | None:
    """The type of the second parameter of a handler: what its payload is decoded to. None without such a parameter.

    TypeError for a handler whose parameters are not (request) or (request, body: <type>).
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
    """msgspec's words without the back quotes, and without the root in a path: `a` for `$.a`."""
    return message.replace("`$.", "`").replace("`", "")

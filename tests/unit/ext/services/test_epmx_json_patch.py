"""What the copies of a JSON Patch may cost. What patches do is in test_epmx_repository.py."""

import json
from typing import Any

import msgspec
import pytest
from kaa_ext import ExtensionError
from kaa_ext.services.epmx import json_patch
from kaa_ext.services.epmx.json_patch import COPIED_MAX, patched
from kaa_ext.services.epmx.metadata import SIZE_MAX, Metadata

COPIES = 40


def metadata_of(size: int) -> Metadata:
    """Return metadata with a large value and a small one."""
    return {"large": msgspec.Raw(json.dumps("x" * size).encode()), "small": msgspec.Raw(b'"x"')}


def encoded(*operations: dict[str, Any]) -> bytes:
    return json.dumps(operations).encode()


def test_a_copy_of_a_small_value_does_not_encode_the_whole_document(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    encode = json_patch._encode

    def counting(value: Any) -> bytes:
        text = encode(value)
        sizes.append(len(text))
        return text

    monkeypatch.setattr(json_patch, "_encode", counting)
    copies = [{"op": "copy", "from": "/small", "path": f"/copy_{number}"} for number in range(COPIES)]
    after = patched(metadata_of(SIZE_MAX // 2), encoded(*copies))
    assert len(after) == COPIES + 2
    assert sum(sizes) < 2 * SIZE_MAX


def test_what_a_patch_copies_is_bounded_also_if_it_is_removed_again() -> None:
    size = SIZE_MAX // 2
    pair = ({"op": "copy", "from": "/large", "path": "/copy"}, {"op": "remove", "path": "/copy"})
    fitting = COPIED_MAX // (size + 2)
    assert list(patched(metadata_of(size), encoded(*pair * fitting))) == ["large", "small"]
    with pytest.raises(ExtensionError) as caught:
        patched(metadata_of(size), encoded(*pair * (fitting + 1)))
    assert caught.value.status_code == 413


@pytest.mark.parametrize(
    ("source", "status"), [("/missing", 409), ("/array/-", 400), ("not a pointer", 400), (1, 400)]
)
def test_a_copy_of_nothing(source: object, status: int) -> None:
    operation = {"op": "copy", "from": source, "path": "/copy"}
    with pytest.raises(ExtensionError) as caught:
        patched({"array": msgspec.Raw(b"[1]")}, encoded(operation))
    assert caught.value.status_code == status

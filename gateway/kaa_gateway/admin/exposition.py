"""Join the metrics of several workers, in Prometheus's text format.

The label `worker` keeps their samples apart: a sum over workers would fall when one of them is started again.
"""

from __future__ import annotations

from collections.abc import Mapping


def merge_metrics(texts: Mapping[int, str]) -> str:
    """Return one exposition of those of several workers, each sample with the label `worker`."""
    families: dict[str, list[str]] = {}
    for index, text in texts.items():
        lines: list[str] = []
        is_new = False
        for line in text.splitlines():
            if line.startswith("# HELP "):
                name = line.split(" ", 3)[2]
                is_new = name not in families
                lines = families.setdefault(name, [])
            if not line.startswith("#"):
                lines.append(_labelled(line, index))
            elif is_new:
                lines.append(line)
    return "".join(f"{line}\n" for lines in families.values() for line in lines)


def _labelled(sample: str, index: int) -> str:
    """Return a sample with the label `worker`. A metric's name has neither a brace nor a space."""
    name, space, value = sample.partition(" ")
    bare, brace, labels = sample.partition("{")
    if brace and len(bare) < len(name):
        return f'{bare}{{worker="{index}",{labels}'
    return f'{name}{{worker="{index}"}}{space}{value}'

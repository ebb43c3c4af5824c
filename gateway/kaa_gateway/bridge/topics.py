"""Topics of other shapes than 1/KP's: a template is matched against a topic, and another one is filled from it.

A template is a topic whose levels may be `{name}`; its last level may be `#`, which stands for any number of levels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kaa_gateway.errors import ConfigError

_NAME = re.compile(r"\{([a-z][a-z0-9_]*)\}")
REST = "#"


class TopicMapping(NamedTuple):
    """The way from topics of one template to topics of another."""

    source: tuple[str, ...]
    target: tuple[str, ...]

    @classmethod
    def of(cls, key: str, source: str, target: str) -> TopicMapping:
        """Return the mapping between two templates. Raises ConfigError, whose detail begins with `key`."""
        levels, filled = (tuple(each.split("/")) for each in (source, target))
        for template, text in ((levels, source), (filled, target)):
            names = [each for each in template if _NAME.fullmatch(each)]
            wrong = [
                each
                for place, each in enumerate(template)
                if not _NAME.fullmatch(each)
                and (
                    any(mark in each for mark in "+{}")
                    or (REST in each and (each, place) != (REST, len(template) - 1))
                )
            ]
            if not text or wrong or len(names) != len(set(names)):
                raise ConfigError("config_invalid", f"{key}: {text!r} is not a template of a topic")
        if missing := sorted(
            {each for each in filled if _NAME.fullmatch(each) or each == REST} - set(levels)
        ):
            raise ConfigError("config_invalid", f"{key}: {missing[0]} of {target!r} is not in {source!r}")
        return cls(levels, filled)

    @property
    def topic_filter(self) -> str:
        """The MQTT topic filter of the source."""
        return "/".join("+" if _NAME.fullmatch(level) else level for level in self.source)

    def apply(self, topic: str) -> str | None:
        """Return the topic that `topic` becomes; None if the source does not match it."""
        values: dict[str, str] = {}
        levels = topic.split("/")
        for place, wanted in enumerate(self.source):
            if wanted == REST:
                values[REST] = "/".join(levels[place:])
                break
            if place >= len(levels) or (wanted != levels[place] and not _NAME.fullmatch(wanted)):
                return None
            values[wanted] = levels[place]
        else:
            if len(levels) != len(self.source):
                return None
        filled = [values.get(level, level) for level in self.target]
        if filled[-1] == "" and self.target[-1] == REST:
            filled.pop()
        return "/".join(filled)


def apply_first(mappings: Sequence[TopicMapping], topic: str) -> str | None:
    """Return what the first mapping that matches makes of a topic; None if none matches."""
    return next(_applied(mappings, topic), None)


def _applied(mappings: Sequence[TopicMapping], topic: str) -> Iterator[str]:
    for mapping in mappings:
        if (mapped := mapping.apply(topic)) is not None:
            yield mapped

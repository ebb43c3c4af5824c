"""A hook of MkDocs that replaces links to files outside of docs/ by their text: the site does not have these files."""

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]*)\]\(((?:\.\./|examples)[^)]*)\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the page without links to files that are not on the site."""
    return OUTSIDE.sub(r"\1", markdown)

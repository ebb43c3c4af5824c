"""The demo page: the data, the configuration and the commands of a device. It is one file, and loads nothing else."""

import base64
import hashlib
import re
from functools import cache
from importlib import resources

from litestar import MediaType, Response, get


@get("/demo", include_in_schema=False)
async def demo_page() -> Response[str]:
    """Return the page."""
    text, headers = _page()
    return Response(text, media_type=MediaType.HTML, headers=headers)


@cache
def _page() -> tuple[str, dict[str, str]]:
    """Return the page, and header fields by which a browser runs its own script only."""
    text = (resources.files("kaa_ext.rest") / "demo.html").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; style-src {_hash(text, 'style')}; script-src {_hash(text, 'script')};"
        " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return text, headers


def _hash(text: str, tag: str) -> str:
    """Return the hash of the one element of this tag, as a source of a Content-Security-Policy."""
    (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"

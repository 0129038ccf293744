"""Style of the HTML pages, which need no network: dark and light, also for phones."""

from html import escape
from pathlib import Path

# What a page may load: images beside it or inside it, its own style, and nothing from other places.
POLICY = (
    "default-src 'none'; img-src 'self' data: blob:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


def page(title: str, body: str, *, scripts: bool = False) -> str:
    """Return a complete page around ``body``, which is HTML; without ``scripts`` the browser runs no scripts in it."""
    style = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
    policy = POLICY + ("; script-src 'unsafe-inline'" if scripts else "")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="reprolib">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""

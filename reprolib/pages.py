"""The house style of HTML pages: one file each, without a network, dark and light, on a phone too."""

from html import escape
from pathlib import Path

# What a page may load: images that lie beside it or in it, its own style, and nothing from elsewhere.
POLICY = (
    "default-src 'none'; img-src 'self' data: blob:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


def page(title: str, body: str, *, scripts: bool = False) -> str:
    """A whole page around ``body``, which is HTML already; without ``scripts`` the browser runs none of it."""
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

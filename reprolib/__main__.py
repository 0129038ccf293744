"""Entry point of the command line: ``python -m reprolib``."""

from reprolib.cli import app

app()

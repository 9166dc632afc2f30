"""`python -m rfdetr`."""

from rfdetr.cli.main import run

run()

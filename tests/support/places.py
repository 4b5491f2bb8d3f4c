"""Folders that tests name."""

from pathlib import Path

SUPPORT = Path(__file__).resolve().parent  # on the path of workers and programs that tests start
REPOSITORY = SUPPORT.parents[1]

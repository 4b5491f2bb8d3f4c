"""The four tools. Importing this package registers their jobs; the entry-point group `llmi.jobs` names it."""

from workers.tools import code, diffusion, edit, search

__all__ = ["code", "diffusion", "edit", "search"]

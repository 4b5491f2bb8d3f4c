"""Render a page as one HTML file without outside references.

Invariants: every string is escaped; a content security policy forbids scripts and loading, whatever a
document contains; a value that a template needs and does not get is an error, not a blank.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

STYLE = Path(__file__).parent / "templates" / "style.css"


def render(template: str, **values: Any) -> str:
    """Render `template` with `values`, the stylesheet and the content security policy."""
    environment = Environment(
        loader=PackageLoader("evaluation.pages"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = STYLE.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return environment.get_template(template).render(style=Markup(style), policy=Markup(policy), **values)

"""Pages as one HTML file: a template and its styles, with nothing outside of it.

Invariants: every string is escaped; a content security policy forbids scripts and all loading, whatever a
document says; a value the template lacks is an error, not a blank.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, styles: Sequence[str], **values: Any) -> str:
    """`template` with `values`, `style` (the files of `styles`, joined) and `policy` (for its meta tag)."""
    environment = Environment(
        loader=PackageLoader("evaluation.pages"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in styles)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return environment.get_template(template).render(style=Markup(style), policy=Markup(policy), **values)

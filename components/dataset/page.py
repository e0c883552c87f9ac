"""A report as people read it and as machines do: index.html from a template of this folder, results.json beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def write_page(folder: Path, template: str, document: dict[str, Any], **shown: Any) -> None:
    """Write both into `folder`; nothing in them changes from run to run unless `document` does.

    Args:
        document: what results.json holds, and the template sees.
        shown: what the template sees besides.
    """
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    ).get_template(template)
    (folder / "results.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "index.html").write_text(page.render(document, **shown), encoding="utf-8")

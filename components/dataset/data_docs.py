"""Great Expectations' own pages about what it judged, made to be the same from run to run and to fetch nothing."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

MOMENT = datetime(2000, 1, 1, tzinfo=UTC)  # of every run: a cached stage has no clock
STAMP = re.compile(r"\d{8}T\d{6}\.\d{6}Z")
CHANCE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
FETCHED = re.compile(
    r"<script[^>]*\bsrc=[^>]*>\s*</script>|<link\b[^>]*>|<img\b[^>]*\bsrc=\s*[\"']?https?:[^>]*>", re.IGNORECASE
)
STYLE = """<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 1rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8884; }
button, footer { display: none; }
.fa-check-circle::before { content: "met"; } .fa-times::before { content: "not met"; }
.fa-exclamation-triangle::before { content: "error"; }
</style>
</head>"""


def site(folder: Path) -> dict[str, Any]:
    """Great Expectations' configuration of a site in `folder`."""
    return {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }


def settle(folder: Path) -> None:
    """Take from every page of the site what changes from run to run, and what a browser would fetch from elsewhere."""
    shutil.rmtree(folder / "static", ignore_errors=True)
    for page in sorted(folder.rglob("*.html")):
        text = page.read_text(encoding="utf-8")
        names = {name: f"id-{n}" for n, name in enumerate(dict.fromkeys(CHANCE.findall(text)))}
        text = CHANCE.sub(lambda found, known=names: known[found.group()], text)  # type: ignore[misc]
        text = STAMP.sub(f"{MOMENT:%Y%m%dT%H%M%S}.000000Z", FETCHED.sub("", text))
        page.write_text(text.replace("</head>", STYLE, 1), encoding="utf-8")

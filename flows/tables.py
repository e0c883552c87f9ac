"""Lists as a person reads them on a terminal."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from components.dataset.quarantine import Waiting
from components.model.evaluation import WEAK
from components.promotion.ledger import Entry
from components.promotion.people import Person
from components.promotion.registry import Version


def rendered(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as text, as wide as the terminal (100 columns where there is none)."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    out = io.StringIO()
    Console(file=out, width=max(100, shutil.get_terminal_size((100, 40)).columns), highlight=False).print(table)
    return out.getvalue().rstrip()


def version_table(name: str, versions: Sequence[Version]) -> str:
    """The registered versions, newest first."""
    if not versions:
        return f"{name}: no version registered yet; run `osteoflow retrain`."
    rows = [
        (
            str(version.version),
            ", ".join(version.aliases) or "",
            version.verdict or "not judged",
            f"{version.metrics['auroc']:.3f}" if "auroc" in version.metrics else "",
            version.evidence or "",
            (version.git_commit or "")[:12],
            version.proposer or "",
            version.created[:16],
        )
        for version in versions
    ]
    return rendered(name, ("version", "alias", "verdict", "AUROC", "evidence", "commit", "proposer", "created"), rows)


def people_table(people: Sequence[Person]) -> str:
    """Who may do what on the registry's server, by name."""
    rows = [
        (p.name, ", ".join(p.roles) or "none", "yes" if p.account else "no", p.given_by or "", (p.given or "")[:16])
        for p in people
    ]
    return rendered("people", ("name", "roles", "can sign in", "given by", "given (UTC)"), rows)


def quarantine_table(folder: Path, groups: Sequence[Waiting]) -> str:
    """What was refused, most frequent reason first, and where the files are."""
    if not groups:
        return "Nothing was ever refused."
    rows = [
        (
            group.reason,
            f"{group.refused - group.settled} of {group.refused}",
            ", ".join(f"{label} {count}" for label, count in group.by_label.items()),
            group.meaning,
            group.remedy,
        )
        for group in groups
    ]
    table = rendered("quarantine", ("reason", "waiting", "by label", "meaning", "what to do"), rows)
    return f"{table}\nThe files, named by their SHA-256: {folder}"


def ledger_table(count: int, entries: Sequence[Entry]) -> str:
    """What was decided, oldest first, under the verdict of the verification."""
    head = f"{count} entries; the chain of hashes and every signature verify."
    if not entries:
        return head
    rows = [(str(e.seq), e.time[:19], e.kind, e.signer or "", _essence(e)) for e in entries]
    return head + "\n" + rendered("ledger", ("entry", "time (UTC)", "kind", "signed by", "what"), rows)


def _essence(entry: Entry) -> str:
    body = entry.body
    if entry.kind == "look":
        return f"look {body['look']} of {body['budget']} at {body['images']} sealed test images"
    if entry.kind == "refresh":
        return (
            f"{len(body['retired'])} test patients retired, {body['images']} sealed images decide now; {body['reason']}"
        )
    if entry.kind == "withdrawal":
        return f"a patient of {body['images']} images, {len(body['models'])} model version(s); {body['reason']}"
    if entry.kind == "role":
        return f"{body['person']}: {', '.join(body['roles']) or 'no role any more'}"
    if entry.kind == "reproduction":
        first = f", from {body['first_difference']} on" if body["first_difference"] else ""
        return f"version {body['version']} built again: {body['verdict']}{first}"
    if entry.kind == "feedback":
        return f"{body['settled']} cases settled, {body['overturned']} against the model"
    parts = [f"version {body['version']}"] if "version" in body else []
    parts += [f"{'back from' if entry.kind == 'return' else 'into'} {body['stage']}"] if "stage" in body else []
    parts += [str(body[key]) for key in ("verdict", "rationale", "reason", "summary") if body.get(key)]
    if body.get("evidence") == WEAK:
        parts.append(WEAK)
    if reasons := body.get("reasons"):
        parts.append(str(reasons[0]) + (f" (+{len(reasons) - 1})" if len(reasons) > 1 else ""))
    return "; ".join(parts)

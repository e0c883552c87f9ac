"""Effect: find the reference: one champion of before that every later challenger is held to, beside the present.

It is whoever answered when the present test patients began to judge: the champion of the last refresh, or the first
champion there was. A refresh moves it on, so no bundle has to be kept for ever; and nobody had looked at these patients
when it was chosen, so that luck did not choose it. Whom a rollback took back is no measure any more: the champion
before, who answers again, is. Where a bundle cannot be had any more the next champion after it takes its place.
"""

from __future__ import annotations

import logging
from pathlib import Path

from components.errors import BundleCorrupt, ConfigError, DataError
from components.promotion.ledger import Entry, Ledger
from components.promotion.registry import Registry
from components.promotion.testset import Standing
from components.serving.bundle import Bundle

log = logging.getLogger("osteoflow.promotion")


def candidates(ledger: Ledger, name: str) -> list[Entry]:
    """The entries that made a champion of `name`, from the one that answered at the last refresh on, oldest first.

    Those that a later rollback took back are left out.
    """
    moves = [e for e in ledger.entries() if e.kind in ("rollout", "rollback") and e.body.get("name") == name]
    moves = [e for e in moves if not any(_took_back(later, e) for later in moves)]
    refresh = Standing.of(ledger, name).refresh
    begun = refresh.seq if refresh else 0
    return [*[e for e in moves if e.seq < begun][-1:], *(e for e in moves if e.seq >= begun)]


def _took_back(later: Entry, move: Entry) -> bool:
    gone = move.body["bundle_hash"]
    return later.seq > move.seq and later.body.get("replaced_hash") == gone != later.body["bundle_hash"]


def reference(*, ledger: Ledger, registry: Registry, name: str, bundles: Path) -> Path | None:
    """The bundle of the reference; None: the champion itself is it, or there is no champion.

    Args:
        bundles: where bundles lie, by hash; one that is not there is fetched from the registry.

    Raises:
        Unavailable: the registry does not answer.
    """
    champion = ledger.champion(name)
    for move in candidates(ledger, name):
        version, bundle_hash = int(move.body["version"]), str(move.body["bundle_hash"])
        if champion is None or champion.body["bundle_hash"] == bundle_hash:
            return None
        folder = bundles / bundle_hash
        try:
            registry.download_bundle(name, version, folder)
            return Bundle.open(folder, expected_hash=bundle_hash).folder
        except (BundleCorrupt, ConfigError, DataError) as error:
            log.warning("%s version %d is no reference any more: %s", name, version, error)
    return None

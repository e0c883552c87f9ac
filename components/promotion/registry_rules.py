"""Noun: who may do what to a registered version, as the registry's server asks it. No web framework in here.

Every rule takes the request's protobuf message and the authenticated user; it returns when the request may go on
and raises PromotionRefused, with the reason a person reads in the UI, when it may not.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from components.errors import PromotionRefused
from components.promotion.approve import approve
from components.promotion.ledger import Ledger, SigningKey
from components.promotion.registry import CHAMPION, PREFIX, RATIONALE, Registry
from components.promotion.roles import Roll
from components.promotion.signers import behind
from components.promotion.standing import has_passed

Rule = Callable[[Any, str], None]
SAFE = ("GET", "HEAD", "OPTIONS")
# Ends of the routes that read although they are posted to; whatever else is posted counts as writing.
READING = (
    "/search", "/search-datasets", "/get-latest-versions", "/graphql", "/presigned-download-url", "/batchGetInfos",
    "/traces/metrics",
)  # fmt: skip
# What a reviewer writes; of new versions, copies alone ("Promote model").
REVIEWING = (
    "/registered-models/alias", "/model-versions/set-tag", "/model-versions/delete-tag", "/model-versions/create",
)  # fmt: skip
REGISTERS = "an engineer registers and edits"


class Rules:
    """The registry's house rules.

    Args:
        ledger: what was decided.
        registry: the store behind the server, addressed directly.
        key_dir: where reviewers' signing keys are.
    """

    def __init__(self, *, ledger: Ledger, registry: Registry, key_dir: Path) -> None:
        self.ledger = ledger
        self.registry = registry
        self.key_dir = key_dir
        self._lock = threading.Lock()
        self._known: tuple[object, Roll] = (object(), Roll())

    def roll(self) -> Roll:
        """Who holds which role now; the ledger is read again whenever its file has changed.

        Raises:
            LedgerCorrupt: it is damaged: nobody is known.
        """
        with self._lock:
            mark = self.ledger.mark()
            if self._known[0] != mark:
                self._known = (mark, Roll(self.ledger.entries()))
            return self._known[1]

    def admit(
        self, user: str, method: str, route: str, *, subject: str | None = None, administers: bool = False
    ) -> None:
        """Whether `user` may make this kind of request at all; what it may do to a version is for the rules below.

        Args:
            route: the server's pattern that the request's path fits, "" where it has none.
            subject: whose account the request says it changes.
            administers: MLflow's own administrator, who holds no role of this house and may do what no rule forbids.
        """
        roles = self.roll().of(user)
        if not roles and not administers:
            raise PromotionRefused(f"{user!r} has no role here; `osteoflow users` gives one, where the server runs")
        if method in SAFE or route.endswith(READING):
            return
        if "/mlflow/users/" in route:
            if route.endswith("/update-password") and subject == user:
                return
            raise PromotionRefused("accounts are managed with `osteoflow users`, which puts them on record")
        if administers or roles & {"engineer", "service"} or ("reviewer" in roles and route.endswith(REVIEWING)):
            return
        more = " and approves" if "reviewer" in roles else ""
        if not more and "reader" in roles:
            more = " here and countersigns with `osteoflow approve`"
        raise PromotionRefused(f"{user!r} ({', '.join(sorted(roles))}) reads{more}; {REGISTERS}")

    def signing(self) -> dict[str, Rule]:
        """The rule that signs as well as it refuses, by the name of its request's protobuf message."""
        return {"SetRegisteredModelAlias": self.set_alias}

    def asking(self) -> dict[str, Rule]:
        """The rule of each other guarded request, by the same; these write nothing."""
        return {
            "DeleteRegisteredModelAlias": self.delete_alias,
            "CreateModelVersion": self.create_version,
            "SetModelVersionTag": self.edit_tag,
            "DeleteModelVersionTag": self.edit_tag,
            "UpdateModelVersion": self.describe,
            "TransitionModelVersionStage": self.never(
                "stages are not used here; a version serves by its alias champion"
            ),
            "DeleteModelVersion": self.never("versions are evidence of what was judged and stay"),
            "DeleteRegisteredModel": self.never("a model's versions are evidence of what was judged and stay"),
            "RenameRegisteredModel": self.never("the ledger knows the model by its name"),
        }

    def set_alias(self, message: Any, user: str) -> None:
        """Giving a version the alias champion is approving it: checked, signed in the user's name, then let through."""
        if message.alias.strip().lower() != CHAMPION:
            return
        what = f"{message.name} version {message.version}"
        if message.alias != CHAMPION:
            raise PromotionRefused(f"{what}: the alias is written {CHAMPION!r}")
        if not _is_number(message.version):
            raise PromotionRefused(f"{what}: that is no version number")
        present = self.ledger.champion(message.name)
        if present is not None and str(present.body["version"]) == message.version:
            return  # the alias comes back to where the ledger says it belongs
        if "reviewer" not in self.roll().of(user):
            raise PromotionRefused(f"{what}: {user!r} is no reviewer; only reviewers make a version {CHAMPION}")
        version = self.registry.version(message.name, int(message.version))
        if not (version.rationale or "").strip():
            raise PromotionRefused(f"{what}: add the tag {RATIONALE!r} with your reason first, then the alias again")
        self._own_words(message.name, version.version, user, version.rationale or "")
        approval = approve(
            ledger=self.ledger,
            registry=self.registry,
            name=message.name,
            version=version.version,
            approver=user,
            rationale=version.rationale or "",
            key=SigningKey.open(self.key_dir, user),
        )
        signed = behind(approval, self.ledger.entries())
        if signed.completing is None:
            raise PromotionRefused(f"{what}: {signed.text()}")

    def _own_words(self, name: str, version: int, user: str, rationale: str) -> None:
        """A second reviewer signs a reason of their own: the tag must not still hold what the first one wrote."""
        for entry in self.ledger.entries("approval"):
            same = (entry.body.get("name"), entry.body.get("version"), entry.body.get("rationale"))
            if same == (name, version, rationale.strip()) and entry.signer != user:
                raise PromotionRefused(
                    f"{name} version {version}: the tag {RATIONALE!r} holds the words that {entry.signer!r} signed; "
                    "write your own first, then the alias again"
                )

    def delete_alias(self, message: Any, user: str) -> None:
        """The alias champion leaves a version only when the ledger names no champion, or by moving."""
        if message.alias.strip().lower() == CHAMPION and self.ledger.champion(message.name) is not None:
            raise PromotionRefused(
                f"{message.name}: the alias {CHAMPION} follows the ledger; to take a version out of use run "
                "`osteoflow rollback`, or approve another version"
            )

    def create_version(self, message: Any, user: str) -> None:
        """A new version tells the truth about its proposer; a copy ("Promote model") needs an original that passed."""
        source = urlsplit(message.source)  # lowers the scheme, as MLflow's own reading does
        roles = self.roll().of(user)
        if source.scheme != "models" and roles and not roles & {"engineer", "service"}:
            raise PromotionRefused(f"{message.name}: a reviewer copies what passed its gate; {REGISTERS}")
        if source.scheme == "models":
            name, _, version = source.path.strip("/").rpartition("/")
            if not name or not _is_number(version) or not has_passed(self.ledger, name, int(version)):
                raise PromotionRefused(f"{message.source}: only a version that passed its gate can be copied")
        for tag in message.tags:
            if tag.key == RATIONALE:
                raise PromotionRefused(f"{message.name}: a reviewer gives the {RATIONALE} after the gate")
            if "service" not in roles:
                if tag.key == f"{PREFIX}proposer" and tag.value != user:
                    raise PromotionRefused(f"{message.name}: {user!r} cannot propose in the name of {tag.value!r}")
                if tag.key == f"{PREFIX}verdict":
                    raise PromotionRefused(f"{message.name}: the gate gives the verdict")

    def edit_tag(self, message: Any, user: str) -> None:
        """Our own tags belong to the flows, the rationale to reviewers, every other tag to everyone."""
        key = message.key.strip().lower()
        if key.startswith(PREFIX) and "service" not in self.roll().of(user):
            raise PromotionRefused(f"{message.name}: tags that begin with {PREFIX} are written by the pipeline alone")
        if key == RATIONALE and "reviewer" not in self.roll().of(user):
            raise PromotionRefused(f"{message.name}: {user!r} is no reviewer; the {RATIONALE} is a reviewer's")

    def describe(self, message: Any, user: str) -> None:
        """The description is what a reviewer decides on."""
        if "service" not in self.roll().of(user):
            raise PromotionRefused(f"{message.name}: the description holds the decision record; the pipeline writes it")

    def never(self, reason: str) -> Rule:
        """A rule that refuses everyone."""

        def refuse(message: Any, user: str) -> None:
            raise PromotionRefused(f"{message.name}: {reason}")

        return refuse


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,9}", text) is not None

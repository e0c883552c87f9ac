"""A site learns the thresholds of its single images from its own first images: one commit, then they stand."""

from __future__ import annotations

from pydantic import BaseModel

from components.dataset.limits import learn, read_limits, record_limits
from components.settings import Settings
from flows import clients


class Learned(BaseModel):
    """What a site learned. before: limits it was judged by until now, by name; after: those that replace them.

    looks: whether it learned what its images look like, too.
    """

    site: str
    images: int
    before: dict[str, float]
    after: dict[str, float]
    looks: bool
    commit: str | None

    def text(self) -> str:
        lines = [f"Limits of {self.site}, from its first {self.images} usable images:"]
        lines += [f"  {name}: {self.before[name]:g} -> {value:g}" for name, value in self.after.items()]
        if self.looks:
            lines.append("  and what its images look like; a picture unlike them is told, not refused")
        if self.commit:
            lines.append(f"Committed as {self.commit[:12]}; the next build judges this site by them.")
        else:
            lines.append("They stood already: nothing to commit.")
        return "\n".join(lines)


def learn_limits(settings: Settings, site: str, *, again: bool) -> Learned:
    """Learn the limits of `site`, record and commit them.

    Raises:
        DataError: there are too few images, tables are missing, or the site has limits and `again` is False.
        ConfigError: the file of limits is damaged.
    """
    home, params = clients.workspace(settings), clients.params(settings)
    paths, images = params.paths, params.validate_.images
    with home.writing():
        known = read_limits(home.root / paths.limits).sites
        learned = learn(splits=home.root / paths.splits, features=home.root / paths.features, site=site, params=images)
        record_limits(home.root / paths.limits, site, learned, again=again)
        message = f"Learn the image limits of site {site} from its first {learned.images} images"
        commit = home.commit_file(paths.limits, message)
    after = learned.model_dump(exclude={"images", "measured_by", "usual"})
    before = {name: getattr(known.get(site), name, None) for name in after}
    before = {name: getattr(images, name) if value is None else value for name, value in before.items()}
    return Learned(
        site=site, images=learned.images, before=before, after=after, looks=learned.usual is not None, commit=commit
    )

"""What a report is written from: the table, what was found in it, and who is who among its sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from gee_polygons.change.detection import Change
    from gee_polygons.recovery.estimation import Recovery
    from gee_polygons.site import SiteCollection


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """What a report is written from.

    Parameters
    ----------
    table : DataFrame
        As `extract_embeddings` gives it.
    sites : SiteCollection or None
        Its polygons.
    changed : Change
        Found by `change`.
    recovered : Recovery or None
        Found by `recovery`; None without references or start years.
    references : sequence of site ids
        What sites should become.
    background : sequence of site ids
        Sites that are said not to have changed, references among them.
    """

    table: pd.DataFrame
    sites: SiteCollection | None
    changed: Change
    recovered: Recovery | None
    references: Sequence[Any]
    background: Sequence[Any]

    @property
    def controls(self) -> list[str]:
        """The background without the references."""
        targets = set(map(str, self.references))
        return [site_id for site_id in map(str, self.background) if site_id not in targets]

    @property
    def roles(self) -> dict[str, str]:
        """What references and controls are, by id."""
        return dict.fromkeys(self.controls, "control") | dict.fromkeys(map(str, self.references), "reference")

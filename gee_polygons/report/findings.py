"""The input of a report: the table, the results of change and recovery, and the roles of the sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from gee_polygons.change.detection import Change
    from gee_polygons.recovery.estimation import Recovery
    from gee_polygons.site import SiteCollection


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """The table, the results of change and recovery, and the roles of the sites.

    Parameters
    ----------
    table : DataFrame
        As `extract_embeddings` returns it.
    sites : SiteCollection or None
        The polygons of the table's sites.
    changed : Change
        Result of `change`.
    recovered : Recovery or None
        Result of `recovery`; None without references or start years.
    references : sequence of site ids
        Sites that show what the others should become.
    background : sequence of site ids
        Sites that are assumed not to have changed, which may include references.
    kinds : mapping of str to str
        By id, the kind of the sites that aren't restoration: see `not_restoration`.
    """

    table: pd.DataFrame
    sites: SiteCollection | None
    changed: Change
    recovered: Recovery | None
    references: Sequence[Any]
    background: Sequence[Any]
    kinds: Mapping[str, str] = field(default_factory=dict)

    @property
    def controls(self) -> list[str]:
        """Ids of the background sites that aren't references."""
        targets = set(map(str, self.references))
        return [site_id for site_id in map(str, self.background) if site_id not in targets]

    @property
    def roles(self) -> dict[str, str]:
        """The role of each site that isn't restoration, by id."""
        by_kind = {i: kind if kind in ("control", "reference") else "other" for i, kind in self.kinds.items()}
        named = dict.fromkeys(self.controls, "control") | dict.fromkeys(map(str, self.references), "reference")
        return by_kind | named

"""Which sites of a table are references, controls or degraded sites, by name or by the property `kind`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from gee_polygons.errors import UsageError, warn_data
from gee_polygons.site.values import plain

if TYPE_CHECKING:
    from gee_polygons.site import Site, SiteCollection

REFERENCE_KINDS: Final = ("reference",)
CONTROL_KINDS: Final = ("control", "reference")
DEGRADED_KINDS: Final = ("degraded",)
_RESTORATION: Final = ("restor", "restaur")  # how a kind begins that says so


def check_references(references: Sequence[Any] | None, sites: Any) -> None:
    """Refuse references without sites.

    Raises
    ------
    UsageError
        If there are references and no sites.
    """
    if references and sites is None:
        raise UsageError("references need the sites too, for the years that restoration began: give --sites")


def check_shared(table: pd.DataFrame, sites: SiteCollection) -> None:
    """Warn if the table and the sites share only some of their ids.

    Raises
    ------
    UsageError
        If they share none, or the table has no column `site_id`.
    """
    _check_ids(table)
    in_table, in_sites = set(table["site_id"].astype(str)), {str(site_id) for site_id in sites.site_ids}
    n_shared = len(in_table & in_sites)
    if not n_shared:
        raise UsageError(
            f"the table's {len(in_table)} sites and the {len(in_sites)} sites given have no id in common, for example "
            f"{min(in_table)!r} and {min(in_sites)!r}; choose the column of the ids (--id-column)"
        )
    if n_shared < max(len(in_table), len(in_sites)):
        warn_data(
            f"table and sites share {n_shared} ids: the table has {len(in_table)} sites, the sites given are "
            f"{len(in_sites)}"
        )


def of_kind(
    table: pd.DataFrame, sites: SiteCollection | None, kinds: Sequence[str], given: Sequence[Any] | None
) -> list[Any]:
    """Return the ids that were given; by default the sites whose property `kind` is one of `kinds` and that have data.

    Raises
    ------
    UsageError
        If the table has no column `site_id`.
    """
    if given is not None:
        return list(given)
    if sites is None or "kind" not in sites.property_names:
        return []
    _check_ids(table)
    with_data = set(table.loc[_has_data(table), "site_id"].astype(str))
    return [site.site_id for site in sites if _kind(site) in kinds and str(site.site_id) in with_data]


def not_restoration(sites: SiteCollection | None) -> dict[str, str]:
    """Return the kinds, by id, of the sites whose property `kind` says that they aren't restoration.

    These are references, controls and degraded sites; and sites of any other kind, where some are of a kind such as
    "restoration": else a kind may well be a kind of restoration.
    """
    kinds = {} if sites is None else {str(site.site_id): _kind(site) for site in sites}
    has_restoration = any(kind.startswith(_RESTORATION) for kind in kinds.values())
    roles = (*CONTROL_KINDS, *DEGRADED_KINDS)
    return {
        site_id: kind
        for site_id, kind in kinds.items()
        if kind in roles or (kind and has_restoration and not kind.startswith(_RESTORATION))
    }


def _kind(site: Site) -> str:
    """Return a site's kind; people write "Reference", and spreadsheets leave spaces."""
    kind = plain(site.properties.get("kind"))
    return "" if kind is None else str(kind).strip().lower()


def prototypes_of(table: pd.DataFrame, sites: SiteCollection | None) -> pd.DataFrame | None:
    """Return the rows of sites with a property `label`, for the direction of change; None for fewer than two labels.

    Raises
    ------
    UsageError
        If the table has no column `site_id`.
    """
    if sites is None or "label" not in sites.property_names:
        return None
    _check_ids(table)
    labels = {str(site.site_id): site.properties.get("label") for site in sites}
    rows = table.assign(label=table["site_id"].astype(str).map(labels)).dropna(subset=["label"])
    n_labels = rows["label"][_has_data(rows)].nunique()
    if n_labels == 1:
        warn_data("all labelled sites have the same label; the direction of change needs at least two labels")
    return rows if n_labels > 1 else None


def _has_data(table: pd.DataFrame) -> Any:
    """Return which rows have a value in the first band; all rows, where there is no such column."""
    return table["A00"].notna() if "A00" in table.columns else pd.Series(True, table.index)


def _check_ids(table: pd.DataFrame) -> None:
    if "site_id" not in table.columns:
        raise UsageError("the table has no column 'site_id': one row per site and year is needed")

"""Pictures of embeddings: one picture, a strip, a film, a sheet of sites and years; and diagrams of tables.

This module holds the public names; what is behind them is in `gee_polygons.pictures` and `gee_polygons.plots`.
"""

from __future__ import annotations

from gee_polygons.embeddings.colors import PcaColors, add_pca_columns, fit_pca_colors
from gee_polygons.embeddings.similarity import similarity_image, similarity_matrix
from gee_polygons.pictures.frames import export_frames_as_gif, export_frames_as_strip
from gee_polygons.pictures.paint import SimilarityColors, VisParams
from gee_polygons.pictures.render import render_image
from gee_polygons.pictures.series import contact_sheet, export_timelapse, export_timestrip
from gee_polygons.plots import (
    plot_band_profile,
    plot_change,
    plot_pca_hexbin,
    plot_pca_scatter,
    plot_similarity_matrix,
    plot_sites,
    plot_trajectory,
    save_plot,
)
from gee_polygons.sources.base import EmbeddingImage

__all__ = [
    "EmbeddingImage",
    "PcaColors",
    "SimilarityColors",
    "VisParams",
    "add_pca_columns",
    "contact_sheet",
    "export_frames_as_gif",
    "export_frames_as_strip",
    "export_timelapse",
    "export_timestrip",
    "fit_pca_colors",
    "plot_band_profile",
    "plot_change",
    "plot_pca_hexbin",
    "plot_pca_scatter",
    "plot_similarity_matrix",
    "plot_sites",
    "plot_trajectory",
    "render_image",
    "save_plot",
    "similarity_image",
    "similarity_matrix",
]

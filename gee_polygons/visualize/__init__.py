"""Pictures of images (single ones, strips, animations, sheets of sites and years) and diagrams of tables.

Public names only; the code is in `gee_polygons.visualize.pictures` and `gee_polygons.visualize.plots`.
"""

from __future__ import annotations

from gee_polygons.embeddings.colors import PcaColors, add_pca_columns, fit_pca_colors
from gee_polygons.embeddings.similarity import similarity_image, similarity_matrix
from gee_polygons.moved import with_old_names
from gee_polygons.reduction.plan import EmbeddingImage
from gee_polygons.visualize.pictures.frames import export_frames_as_gif, export_frames_as_strip
from gee_polygons.visualize.pictures.layers import export_layer_gif, export_layer_timestrip, render_site_layer
from gee_polygons.visualize.pictures.render import render_image
from gee_polygons.visualize.pictures.series import contact_sheet, export_timelapse, export_timestrip
from gee_polygons.visualize.pictures.styles import SimilarityColors, VisParams
from gee_polygons.visualize.plots.classes import plot_classes
from gee_polygons.visualize.plots.components import plot_pca_hexbin, plot_pca_scatter, plot_trajectory
from gee_polygons.visualize.plots.figure import save_plot
from gee_polygons.visualize.plots.matrix import plot_similarity_matrix
from gee_polygons.visualize.plots.profiles import plot_band_profile, plot_change
from gee_polygons.visualize.plots.sites import plot_sites

__all__ = [
    "EmbeddingImage",
    "PcaColors",
    "SimilarityColors",
    "VisParams",
    "add_pca_columns",
    "contact_sheet",
    "export_frames_as_gif",
    "export_frames_as_strip",
    "export_layer_gif",
    "export_layer_timestrip",
    "export_timelapse",
    "export_timestrip",
    "fit_pca_colors",
    "plot_band_profile",
    "plot_change",
    "plot_classes",
    "plot_pca_hexbin",
    "plot_pca_scatter",
    "plot_similarity_matrix",
    "plot_sites",
    "plot_trajectory",
    "render_image",
    "render_site_layer",
    "save_plot",
    "similarity_image",
    "similarity_matrix",
]

with_old_names(__name__)

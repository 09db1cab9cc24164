"""Diagrams of embedding tables, with matplotlib: an `ax` comes in, an `ax` goes out, nothing is shown or kept.

Colour maps are perceptual (viridis, cividis; diverging about 0 for change), classes have the colours of Okabe and Ito
(2008), which people with colour-blindness tell apart. matplotlib is imported when something is drawn.
"""

from gee_polygons.visualize.plots.components import plot_pca_hexbin, plot_pca_scatter, plot_trajectory
from gee_polygons.visualize.plots.figure import OKABE_ITO, save_plot
from gee_polygons.visualize.plots.matrix import plot_similarity_matrix
from gee_polygons.visualize.plots.profiles import plot_band_profile, plot_change
from gee_polygons.visualize.plots.sites import plot_sites

__all__ = [
    "OKABE_ITO",
    "plot_band_profile",
    "plot_change",
    "plot_pca_hexbin",
    "plot_pca_scatter",
    "plot_similarity_matrix",
    "plot_sites",
    "plot_trajectory",
    "save_plot",
]

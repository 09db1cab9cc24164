"""Diagrams of embedding tables, drawn with matplotlib; the public names are in `gee_polygons.visualize`.

Each function draws into the axes that it is given, or into those of a new figure, and returns them; nothing is shown.
Colour maps are perceptual (viridis, cividis; diverging about 0 for change); classes have the colours of Okabe and Ito
(2008), which people with colour blindness can distinguish. matplotlib is imported when something is drawn.
"""

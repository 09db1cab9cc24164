"""How pictures are made; the public names are in `gee_polygons.visualize`.

`paint`: values to colours. `view`: ground to picture. `draw`: what stands over pixels. `render`: one picture.
`frames`: strips and films. `series`: a site's years.
"""

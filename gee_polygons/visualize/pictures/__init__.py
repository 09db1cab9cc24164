"""Pictures of images; the public names are in `gee_polygons.visualize`.

`styles`: values to colours. `view`: ground to picture. `overlays`, `text`: boundaries, labels, scale bars.
`render`: one picture. `frames`, `gif`: strips and animations. `series`, `caption`: a site's years.
"""

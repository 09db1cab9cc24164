"""Opens the session that the notebooks about Earth Engine need."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any


def session(service: str, *, layers: bool = False) -> Any:
    """Connect the `ee` client, to an account or to the server that the tests use.

    Parameters
    ----------
    service : {"local", "real"}
        ``"local"``: a process on this machine, from a checkout of the project, that serves the synthetic sample
        archive. ``"real"``: your own account; call ``ee.Authenticate()`` once before.
    layers : bool
        Whether the local server has MapBiomas, Dynamic World and Sentinel-2, too: synthetic, of the sample's land.

    Returns
    -------
    The local server, or None for an account.
    """
    if service == "real":
        from gee_polygons.sources.earthengine import connect

        print("project:", connect())  # connect("your-project"), or EE_PROJECT; a session that is there is left alone
        return None
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
    from earthengine import EarthEngineServer
    from earthengine.client import connect as connect_locally
    from earthengine.sample_layers import write_sample_layers

    from gee_polygons.sources.sample import sample_archive_path

    catalogue = write_sample_layers(Path(tempfile.mkdtemp())) if layers else None
    server = EarthEngineServer(sample_archive_path(), catalogue).start()
    connect_locally(server.url)
    return server

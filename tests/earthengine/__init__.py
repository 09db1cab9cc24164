"""A local Earth Engine for tests.

`EarthEngineServer` speaks enough of the REST API, on 127.0.0.1, for the real `ee` client: discovery, algorithms,
values, tables, pixels, thumbnails, map tiles, exports and operations. It evaluates expressions with numpy over a folder
of AEF-style tiles and over small catalogued rasters. What it doesn't know it answers with HTTP 501: never a guess.

It shares no code with gee_polygons. Its semantics are the documented ones; where the documents are silent the module
that decides says what was assumed (`region` for weights, `reducer` for which reducers are weighted, `image_math` for
types).
"""

from .errors import ServiceError, UnimplementedError
from .faults import Faults
from .log import Entry, RequestLog
from .server import EarthEngineServer

__all__ = ["EarthEngineServer", "Entry", "Faults", "RequestLog", "ServiceError", "UnimplementedError"]

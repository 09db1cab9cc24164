"""A local Earth Engine for tests.

`EarthEngineServer` speaks enough of the REST API, on 127.0.0.1, for the real `ee` client: discovery, algorithms,
values, tables, pixels, thumbnails, map tiles, exports and operations. It evaluates expressions with numpy over a folder
of AEF-style tiles and over small catalogued rasters. What it doesn't know it answers with HTTP 501: never a guess.

It shares no code with gee_polygons. Its semantics are the documented ones; where the documents are silent the module
that decides says what was assumed (`region` for weights, `reducer` for which reducers are weighted, `image_math` for
types).

In a test (the fixtures are in `fixtures`; import them into the conftest of another folder):

    def test_something(ee_server):                     # the standard archive; `earth(tiles, catalogue)` for your own
        ee_server.faults.latency_s = 0.2               # rules: also memory_limit, timeout_limit, concurrency_limit,
        ee_server.faults.memory_limit = 1e6            #   rate_limit, export_seconds, export_error, poison(text, kind)
        ee_server.faults.fail_next("rate", 3)          # one of KINDS, "drop", "hang:5", or a text for HTTP 400
        ee_server.faults.fail_randomly(0.1, seed=1)
        ...
        assert len(ee_server.log.entries("computeFeatures")) <= 7
        assert ee_server.log.max_at_once <= 20

As a process: `python -m earthengine --tiles FOLDER` in `tests`; POST /control takes the same as JSON, GET /control/log
answers the log. `client.connect(url)` initialises the real client against it.

Always on, as on the service: 10 MB of payload, 5,000 elements per value:compute, 48 MiB, 32K pixels a side and 1,024
bands per computePixels, 40 requests at once, 6,000 a minute, two batch tasks.

Answered with 501: kernels, arrays, joins, sampling, vectors, classifiers, terrain; percentiles but the median; areas
and lengths of geometries; time zones; numbers at scales coarser than the pixels (pyramids), of painted images and of
clips across pixels; casts of fractions; results that are not finite; and all else not registered in `functions`.
"""

from .errors import ServiceError, UnimplementedError
from .faults import Faults
from .log import Entry, RequestLog
from .server import EarthEngineServer

__all__ = ["EarthEngineServer", "Entry", "Faults", "RequestLog", "ServiceError", "UnimplementedError"]

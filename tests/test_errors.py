"""Every error of the package survives pickling and copying, so it reaches the parent of a worker process unchanged."""

import copy
import importlib
import inspect
import pickle
import pkgutil

import pytest

import gee_polygons
from gee_polygons.errors import DependencyError, GeePolygonsError, ReadError
from gee_polygons.network.local import MissingFileError
from gee_polygons.site.collection import SiteRefusedWarning, SiteRepairWarning
from gee_polygons.site.polygons import RefusedRowsError
from gee_polygons.sources.earthengine.transport import Refusal, RequestFailedError

ATTRIBUTES = {  # what constructors take besides a message
    ReadError: {"url": "https://host/a.tiff", "year": 2020},
    MissingFileError: {"url": "https://host/a.tiff", "year": 2020},
    DependencyError: {"name": "rustac", "path": "/somewhere"},
    RefusedRowsError: {"reasons": {3: "is a Point"}},
}
REFUSAL = Refusal("passing", "Unavailable", 503)


def subclasses(kind):
    return {kind}.union(*map(subclasses, kind.__subclasses__()))


def all_kinds():
    for module in pkgutil.walk_packages(gee_polygons.__path__, "gee_polygons."):
        if module.name != "gee_polygons.__main__":
            importlib.import_module(module.name)
    return sorted(subclasses(GeePolygonsError), key=lambda kind: kind.__name__)


def an_error(kind):
    if kind is RequestFailedError:
        return kind(REFUSAL)
    return kind("a.tiff: can't be read", **ATTRIBUTES.get(kind, {}))


@pytest.mark.parametrize("again", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("kind", all_kinds())
def test_errors_can_be_pickled_and_copied(kind, again):
    error = an_error(kind)
    error.add_note("while reading site 7")
    found = again(error)
    assert type(found) is kind
    assert found is not error
    assert (str(found), found.args) == (str(error), error.args)
    assert vars(found) == vars(error)
    for name in ("url", "year", "refusal", "name", "path", "msg", "errno", "code", "exit_status"):
        assert getattr(found, name, None) == getattr(error, name, None), name


def test_every_class_was_tried():
    kinds = all_kinds()
    assert {RequestFailedError, ReadError, MissingFileError, DependencyError} <= set(kinds)
    for kind in kinds:
        extra = set(inspect.signature(kind.__init__).parameters) - {"self", "message", "args", "kwargs"}
        assert not extra or kind is RequestFailedError or extra == set(ATTRIBUTES.get(kind, ())), kind


def test_a_request_that_failed_comes_back_with_its_reason():
    """Unpickling raised `AttributeError: 'str' object has no attribute 'message'` in the parent process."""
    found = pickle.loads(pickle.dumps(RequestFailedError(REFUSAL)))
    assert found.refusal == REFUSAL
    assert str(found) == "Earth Engine: Unavailable"


def test_a_warning_keeps_its_sites():
    assert pickle.loads(pickle.dumps(SiteRepairWarning("repaired", ("a", 7)))).site_ids == ("a", 7)
    assert pickle.loads(pickle.dumps(SiteRefusedWarning("left out", {1: (7, "is a Point")}))).refused == {
        1: (7, "is a Point")
    }

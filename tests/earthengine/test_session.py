"""`connect`: where credentials and projects come from, and what is said when there are none."""

import json
from types import SimpleNamespace

import ee
import pytest

from gee_polygons.errors import EarthEngineError, InputFileError
from gee_polygons.sources.earthengine import connect


@pytest.fixture
def initialised(monkeypatch):
    """Record what ee.Initialize is called with; there are stored credentials with a project of their own."""
    calls = []
    for name in ("EE_PROJECT", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ee.data, "is_initialized", lambda: False)
    monkeypatch.setattr(ee.data, "get_persistent_credentials", lambda: SimpleNamespace(quota_project_id="of-the-user"))
    monkeypatch.setattr(ee, "Initialize", lambda credentials, project: calls.append((credentials, project)))
    return calls


def test_the_project_is_the_argument_then_the_settings_then_that_of_the_credentials(initialised, monkeypatch):
    assert connect() == "of-the-user"
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "of-the-cloud")
    assert connect() == "of-the-cloud"
    monkeypatch.setenv("EE_PROJECT", "of-ee")
    assert connect() == "of-ee"
    assert connect("named") == "named"
    assert [project for _, project in initialised] == ["of-the-user", "of-the-cloud", "of-ee", "named"]


def test_a_session_that_is_there_is_left_alone(ee_server, monkeypatch):
    monkeypatch.setattr(ee, "Initialize", lambda *args, **more: pytest.fail("a session was there"))
    assert connect("another") == "test"


def test_without_credentials_or_project_one_line_says_what_to_do(initialised, monkeypatch):
    monkeypatch.setattr(ee.data, "get_persistent_credentials", lambda: SimpleNamespace(quota_project_id=None))
    with pytest.raises(EarthEngineError, match="EE_PROJECT") as error:
        connect()
    assert "\n" not in str(error.value)

    def none():
        raise ee.EEException("Please authorize access to your Earth Engine account\nby running ...")

    monkeypatch.setattr(ee.data, "get_persistent_credentials", none)
    with pytest.raises(EarthEngineError, match=r"ee\.Authenticate\(\) once") as error:
        connect("p")
    assert "\n" not in str(error.value)


def test_a_refusal_is_one_line(initialised, monkeypatch):
    def refuse(credentials, project):
        raise ee.EEException("Project 'p' is not registered\n to use Earth Engine.")

    monkeypatch.setattr(ee, "Initialize", refuse)
    with pytest.raises(
        EarthEngineError, match="refuses the project 'p': Project 'p' is not registered to use"
    ) as error:
        connect("p")
    assert "\n" not in str(error.value)


def test_a_service_account_brings_its_project(initialised, monkeypatch, tmp_path):
    path = tmp_path / "key.json"
    path.write_text(json.dumps({"client_email": "a@b.c", "project_id": "of-the-account"}))
    monkeypatch.setattr(ee, "ServiceAccountCredentials", lambda email, key_file: (email, key_file))
    assert connect(service_account_file=path) == "of-the-account"
    assert initialised == [(("a@b.c", str(path)), "of-the-account")]
    path.write_text("[]")
    with pytest.raises(InputFileError, match="isn't the JSON key"):
        connect(service_account_file=path)
    with pytest.raises(InputFileError, match="can't read"):
        connect(service_account_file=tmp_path / "none.json")

"""Uses the caller's Earth Engine session; only `connect` starts one, when the caller asks for it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from gee_polygons.errors import DependencyError, EarthEngineError, InputFileError

PROJECT_SETTINGS: Final = ("EE_PROJECT", "GOOGLE_CLOUD_PROJECT")
GOOGLE_HOST: Final = "earthengine.googleapis.com"


def connect(project: str | None = None, service_account_file: str | os.PathLike[str] | None = None) -> str:
    """Start a session with Earth Engine, unless there is one already.

    Parameters
    ----------
    project : str, optional
        Google Cloud project, registered for Earth Engine. Default: the environment variable ``EE_PROJECT``, else
        ``GOOGLE_CLOUD_PROJECT``, else the project of the credentials.
    service_account_file : str or path, optional
        JSON key of a service account. Default: the credentials that ``ee.Authenticate()`` stored.

    Returns
    -------
    str
        The project of the session.

    Raises
    ------
    EarthEngineError
        Without credentials or project, or if Earth Engine refuses the project.
    InputFileError
        If the key file is missing or isn't the key of a service account.
    """
    import ee

    if ee.data.is_initialized():
        return project_path().removeprefix("projects/")
    chosen = project or _project_setting()
    if service_account_file is not None:
        credentials, own = _service_account(Path(service_account_file))
    else:
        credentials, own = _stored_credentials(ee)
    chosen = chosen or own
    if not chosen:
        raise EarthEngineError(
            'Earth Engine needs a project: call connect("your-project"), or set EE_PROJECT to its name; projects are '
            "registered at https://code.earthengine.google.com/register"
        )
    try:
        ee.Initialize(credentials, project=chosen)
    except (ee.EEException, OSError) as error:
        raise EarthEngineError(
            f"Earth Engine refuses the project {chosen!r}: {' '.join(str(error).split())}"
        ) from error
    return chosen


def sign_in_status() -> str:
    """Say whether there are credentials and a project, or a session; credentials are looked for, not tried."""
    import ee

    if ee.data.is_initialized():
        return f"signed in, project {project_path().removeprefix('projects/')}"
    try:
        _, own = _stored_credentials(ee)
    except EarthEngineError:
        return "not signed in: run `earthengine authenticate` once, and set EE_PROJECT to your project"
    project = _project_setting() or own
    return f"signed in, project {project}" if project else "signed in, but no project: set EE_PROJECT to yours"


def _project_setting() -> str | None:
    return next((value for name in PROJECT_SETTINGS if (value := os.environ.get(name))), None)


def build_request(resource: str, method: str, **arguments: Any) -> Any:
    """Return a request of the REST API, built by the session's client (address, headers, credentials) and not sent.

    The client has no public function for this. Its private functions are used here only, so that a version in which
    they differ ends in one clear error.

    Parameters
    ----------
    resource, method : str
        Such as ``"table"`` and ``"computeFeatures"``.
    **arguments
        Arguments of the method, and ``body``. Default: the session's project and an empty body.

    Returns
    -------
    googleapiclient.http.HttpRequest
        Its `execute` returns bytes.

    Raises
    ------
    DependencyError
        If this version of the client can't be used.
    """
    ee = earth_engine()
    try:
        arguments = arguments or {"project": ee.data._get_projects_path(), "body": {}}
        found = getattr(getattr(ee.data._get_cloud_projects_raw(), resource)(), method)(**arguments)
        if not all(hasattr(found, name) for name in ("uri", "http", "body", "body_size", "execute")):
            raise AttributeError(f"{type(found).__name__} is not an HTTP request")
    except AttributeError as error:
        raise incompatible_client(str(error)) from error
    return found


def incompatible_client(what: str) -> DependencyError:
    """Return the error for a version of the client whose private functions differ."""
    import ee

    return DependencyError(
        f"earthengine-api {getattr(ee, '__version__', '(unknown)')} has other internals than the versions that "
        f'gee_polygons knows ({what}): pip install "earthengine-api>=1.5,<=1.7.50"'
    )


def service_identity() -> str:
    """Return the service's host and port, which distinguishes its cached values; empty for Google's own."""
    netloc = urlsplit(str(build_request("value", "compute").uri)).netloc
    return "" if netloc.endswith(GOOGLE_HOST) else netloc


def project_path() -> str:
    """Return the project of the session, as ``projects/name``."""
    return urlsplit(str(build_request("value", "compute").uri)).path.rpartition("/")[0].partition("/v1/")[2]


def _stored_credentials(ee: Any) -> tuple[Any, str | None]:
    try:
        credentials = ee.data.get_persistent_credentials()
    except (ee.EEException, OSError) as error:
        raise EarthEngineError(
            "there are no Earth Engine credentials on this machine: call ee.Authenticate() once, "
            'then connect("your-project")'
        ) from error
    return credentials, getattr(credentials, "quota_project_id", None)


def _service_account(path: Path) -> tuple[Any, str | None]:
    import ee

    try:
        key = json.loads(path.read_text(encoding="utf-8"))
        credentials = ee.ServiceAccountCredentials(key["client_email"], key_file=str(path))
    except OSError as error:
        raise InputFileError(f"can't read the key of the service account {path}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputFileError(f"{path} isn't the JSON key of a service account") from error
    return credentials, key.get("project_id")


def earth_engine() -> Any:
    """Return the `ee` module, if the user has initialised it; this package never does by itself."""
    import ee

    if not ee.data.is_initialized():
        raise EarthEngineError(
            'Earth Engine is not initialised: call ee.Authenticate() and then ee.Initialize(project="your-project")'
        )
    return ee

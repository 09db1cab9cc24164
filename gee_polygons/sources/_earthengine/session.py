"""Whose session it is: never ours. `connect` starts one when the user asks, everything else only looks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from gee_polygons._sites.site import earth_engine
from gee_polygons.errors import EarthEngineError, InputFileError

__all__ = ["connect", "earth_engine", "service_identity"]

PROJECT_SETTINGS: Final = ("EE_PROJECT", "GOOGLE_CLOUD_PROJECT")
GOOGLE_HOST: Final = "earthengine.googleapis.com"


def connect(project: str | None = None, service_account_file: str | os.PathLike[str] | None = None) -> str:
    """Start a session with Earth Engine; one that is there already is left as it is.

    Parameters
    ----------
    project : str, optional
        Google Cloud project that is registered for Earth Engine. Default: the environment variable ``EE_PROJECT``, else
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
        Without credentials or project, or if Earth Engine refuses; one line that says what to do.
    InputFileError
        If the key isn't there or isn't one.
    """
    import ee

    if ee.data.is_initialized():
        return _project_of_session()
    chosen = project or next((value for name in PROJECT_SETTINGS if (value := os.environ.get(name))), None)
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


def service_identity() -> str:
    """Return what tells this service's values from another's: empty for Google's, else host and port."""
    import ee

    netloc = urlsplit(str(ee.data._get_state().cloud_api_base_url or "")).netloc
    return "" if netloc.endswith(GOOGLE_HOST) else netloc


def _project_of_session() -> str:
    import ee

    return str(ee.data._get_projects_path()).removeprefix("projects/")


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

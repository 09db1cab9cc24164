"""The Ray engine on one node and on two: the bytes of the local engine, killed workers, bugs."""

from __future__ import annotations

import os
import signal
import traceback

import pytest
from test_bulk import fields, files_of, go, index, small, whole  # noqa: F401

from gee_polygons.bulk import engines

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


def test_one_node_gives_the_bytes_of_this_process(whole, index, fields, tmp_path):  # noqa: F811
    assert go(fields, tmp_path / "d", index, keep=True, engine="ray").is_complete
    assert files_of(tmp_path / "d") == files_of(whole[0])


@pytest.fixture
def two_nodes(monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100_000_000})
    cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
    ray.init(address=cluster.address, log_to_driver=False, runtime_env={"env_vars": engines.WORKER_ENVIRONMENT})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_two_nodes_give_the_bytes_of_this_process(two_nodes, whole, index, fields, tmp_path):  # noqa: F811
    assert go(fields, tmp_path / "d", index, keep=True, engine="ray").is_complete
    assert ray.is_initialized()  # a connection of the caller's stays
    assert files_of(tmp_path / "d") == files_of(whole[0])


def test_a_killed_worker_is_retried_and_a_bug_shows_its_traceback(two_nodes, tmp_path, monkeypatch):
    def kill_once(folder, number, source, workers):
        mark = tmp_path / f"{number}"
        if number == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"chunk": number}

    monkeypatch.setattr(engines, "do_chunk", kill_once)
    found = dict(engines.run_on_ray("", [0, 1, 2], None, None))
    assert found == {i: {"chunk": i} for i in range(3)}
    assert (tmp_path / "1").exists()

    def broken(folder, number, source, workers):
        raise ZeroDivisionError("of the task")

    monkeypatch.setattr(engines, "do_chunk", broken)
    ((_, error),) = engines.run_on_ray("", [0], None, None)
    assert isinstance(error, ZeroDivisionError)
    assert "in broken" in "".join(traceback.format_exception(error))

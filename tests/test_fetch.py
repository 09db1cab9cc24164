"""Requests: merged, many at once, in bounded memory, retried, and never silently wrong."""

import os
import random
import threading
import time

import numpy as np
import pytest
from rangeserver import Faults, serve

from gee_polygons.errors import ReadError, UsageError
from gee_polygons.network import ranges as _fetch
from gee_polygons.network.ranges import MAX_REQUEST_BYTES, MAX_WASTE_BYTES, RangeRequest, merge, stream
from gee_polygons.network.request import Network, fetch, fetch_some

QUICK = Network(attempts=8, first_wait_s=0.001, longest_wait_s=0.01, timeout_s=5)
SIZE = 3_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranges")
    (path / "a.bin").write_bytes(random.Random(1).randbytes(SIZE))
    (path / "b.bin").write_bytes(random.Random(2).randbytes(SIZE))
    return path


def some_requests(base, n=40, seed=0):
    chance = np.random.default_rng(seed)
    requests = []
    for _ in range(n):
        starts = chance.integers(1, SIZE - 5000, 6).tolist()
        lengths = chance.integers(1, 5000, 6).tolist()
        requests.append(RangeRequest(f"{base}/{chance.choice(['a', 'b'])}.bin", starts, lengths))
    return requests


def check(folder, requests, answers):
    content = {name: (folder / name).read_bytes() for name in ("a.bin", "b.bin")}
    assert len(answers) == len(requests)
    for request, answer in zip(requests, answers, strict=True):
        data = content[request.place.rsplit("/", 1)[1]]
        assert isinstance(answer, list), answer
        for start, length, part in zip(request.starts, request.lengths, answer, strict=True):
            assert bytes(part) == data[start : start + length]


# --- merging


def test_neighbours_are_one_request_and_waste_has_a_limit():
    right = (
        RangeRequest("t", [0, 10_000_000], [400_000, 400_000]),
        RangeRequest("t", [400_008, 10_400_008], [400_000, 400_000]),
    )
    assert [(r.start, r.stop) for r in merge(right)] == [(0, 800_008), (10_000_000, 10_800_008)]
    gaps = [RangeRequest("t", [i * (100 + MAX_WASTE_BYTES // 4)], [100]) for i in range(40)]
    for request in merge(gaps):
        assert request.waste <= MAX_WASTE_BYTES
        assert request.waste == request.stop - request.start - 100 * len(request.parts)
    assert len(merge(gaps)) == 8  # five of them have four gaps between them


def test_a_merged_request_has_a_size_limit_and_a_large_range_is_left_whole():
    row = [RangeRequest("t", [i * 2**20], [2**20]) for i in range(8)]
    assert [r.stop - r.start for r in merge(row)] == [MAX_REQUEST_BYTES] * 2
    assert [r.stop - r.start for r in merge([RangeRequest("t", [0], [3 * MAX_REQUEST_BYTES])])] == [
        3 * MAX_REQUEST_BYTES
    ]


def test_files_are_not_mixed_and_the_same_range_is_requested_once():
    requests = [
        RangeRequest("t", [5], [10]),
        RangeRequest("u", [5], [10]),
        RangeRequest("t", [5], [10]),
        RangeRequest("t", [7], [3]),
    ]
    assert [(r.place, r.start, r.stop, sorted(r.parts)) for r in merge(requests)] == [
        ("t", 5, 15, [(0, 0), (2, 0), (3, 0)]),
        ("u", 5, 15, [(1, 0)]),
    ]


# --- streaming


def test_everything_comes_in_order_from_disk_and_over_http(folder):
    for base in (str(folder), folder.as_uri()):
        requests = some_requests(base)
        check(folder, requests, list(stream(requests)))
    with serve(folder) as server:
        requests = some_requests(server.url)
        check(folder, requests, list(stream(requests, QUICK)))
        assert server.requests == len(merge(requests))


def test_no_range_means_no_request(folder):
    assert list(stream([])) == []
    assert list(stream([RangeRequest(str(folder / "a.bin"), [], [])])) == [[]]


def test_at_most_so_many_requests_are_under_way(folder):
    with serve(folder, latency_s=0.01) as server:
        requests = [RangeRequest(f"{server.url}/a.bin", [i * 200_000 + 1], [10]) for i in range(15)]
        check(folder, requests, list(stream(requests, Network(max_concurrent=4))))
        assert server.most_at_once == 4


def test_several_range_requests_are_under_way_together(folder):
    with serve(folder, latency_s=0.05) as server:
        requests = [RangeRequest(f"{server.url}/a.bin", [i * 200_000 + 1], [10]) for i in range(15)]
        check(folder, requests, list(stream(requests)))
        assert server.most_at_once > 8


def test_what_is_fetched_ahead_is_bounded(folder, monkeypatch):
    monkeypatch.setattr(_fetch, "AHEAD_BYTES", 500_000)
    monkeypatch.setattr(_fetch, "BATCH_BYTES", 300_000)
    with serve(folder) as server:
        requests = [RangeRequest(f"{server.url}/{'ab'[i % 2]}.bin", [i * 100_000 + 1], [90_000]) for i in range(29)]
        answers = stream(requests)
        first = next(answers)
        time.sleep(0.3)
        assert server.sent <= 500_000
        check(folder, requests, [first, *answers])


def test_twice_as_much_is_fetched_ahead_while_a_reader_waits(folder, monkeypatch):
    monkeypatch.setattr(_fetch, "AHEAD_BYTES", 500_000)
    with serve(folder) as server:
        answer, stall = server._answer, threading.Event()
        server._answer = lambda connection, lines: (
            "bytes=1-" in str(lines) and stall.wait(5),
            answer(connection, lines),
        )[1]
        requests = [RangeRequest(f"{server.url}/{'ab'[i % 2]}.bin", [i * 100_000 + 1], [90_000]) for i in range(29)]
        answers = stream(requests)
        first = next(answers)
        reader = threading.Thread(target=first[0].read)
        reader.start()
        time.sleep(0.3)
        stall.set()
        reader.join()
        assert 500_000 < server.sent <= 1_200_000


def test_leaving_early_ends_the_requests(folder):
    with serve(folder, latency_s=0.02) as server:
        requests = [RangeRequest(f"{server.url}/a.bin", [i * 1000 + 1], [10]) for i in range(0, 2900, 70)]
        answers = stream(requests, Network(max_concurrent=2))
        next(answers)
        answers.close()
        time.sleep(0.1)
        so_far = server.requests
        assert so_far < len(requests)
        time.sleep(0.1)
        assert server.requests == so_far


def test_what_is_read_ahead_of_a_disk_is_bounded(folder, monkeypatch):
    read, original = [], _fetch._local_ranges
    monkeypatch.setattr(_fetch, "AHEAD_BYTES", 500_000)
    monkeypatch.setattr(_fetch, "_local_ranges", lambda request: read.append(request.size) or original(request))
    requests = [RangeRequest(str(folder / f"{'ab'[i % 2]}.bin"), [i * 100_000 + 1], [90_000]) for i in range(29)]
    answers = stream([*requests, RangeRequest(requests[0].place, [0], [SIZE])])  # larger than the limit: read by itself
    found = [next(answers)]
    time.sleep(0.1)
    assert sum(read) <= 500_000
    found += answers
    check(folder, requests, found[:-1])
    assert len(found[-1][0]) == SIZE


def test_a_local_failure_names_its_range_and_affects_no_other_request(folder):
    here = str(folder / "a.bin")
    requests = [RangeRequest(here, [1], [10]), RangeRequest(here, [1, SIZE - 1], [2, 2]),
             RangeRequest(str(folder), [0], [2]), RangeRequest(here + "x", [0], [2]),
             RangeRequest(here, [7], [10])]  # fmt: skip
    first, *bad, last = stream(requests)
    check(folder, [requests[0], requests[-1]], [first, last])
    assert [failed.span for failed in bad] == [1, 0, 0]
    for failed, request, words in zip(bad, requests[1:], ("truncated", "can't be read", "no such file"), strict=False):
        assert str(failed.error).startswith(f"{request.place}: ")
        assert words in str(failed.error)


# --- faults


@pytest.mark.parametrize(
    "faults",
    [
        Faults(error=0.2, seed=1),
        Faults(error=0.2, status=429, seed=2),
        Faults(error=0.2, status=500, seed=3),
        Faults(truncate=0.2, seed=4),
        Faults(drop=0.2, seed=5),
        Faults(wrong_length=0.02, seed=6),
        Faults(lie=0.02, seed=9),
        Faults(error=0.1, truncate=0.1, drop=0.1, seed=8),
    ],
    ids=lambda f: "-".join(n for n in ("error", "truncate", "drop", "wrong_length", "lie") if getattr(f, n)),
)
def test_transient_faults_are_retried_until_all_is_right(folder, faults):
    with serve(folder, faults=faults) as server:
        requests = some_requests(server.url, seed=faults.seed)
        check(folder, requests, list(stream(requests, QUICK)))
        assert server.requests > len(merge(requests))  # there were faults


@pytest.mark.parametrize("kind", ["error", "truncate", "drop", "wrong_length", "lie"])
def test_faults_that_stay_are_errors_that_name_the_url_after_so_many_tries(folder, kind):
    with serve(folder, faults=Faults(**{kind: 1.0})) as server:
        with pytest.raises(ReadError, match=r"/a\.bin: can't be read after \d tries: ") as caught:
            fetch(f"{server.url}/a.bin", 10, 100, QUICK)
        assert caught.value.url == f"{server.url}/a.bin"
        assert "\n" not in str(caught.value)
        assert server.requests == (3 if kind in ("wrong_length", "lie") else QUICK.attempts)


@pytest.mark.parametrize(
    ("status", "says"), [(404, "no such file"), (403, "403"), (416, "416"), (400, "400"), (401, "401")]
)
def test_permanent_errors_are_raised_at_once(folder, status, says, monkeypatch):
    monkeypatch.setitem(__import__("rangeserver").REASONS, 400, "Bad Request")
    monkeypatch.setitem(__import__("rangeserver").REASONS, 401, "Unauthorized")
    with serve(folder, faults=Faults(error=1.0, status=status)) as server:
        with pytest.raises(ReadError, match=says):
            fetch(f"{server.url}/a.bin", 10, 100)
        assert server.requests == 1


def test_a_range_past_the_end_is_an_error_at_once_local_and_remote(folder):
    with serve(folder) as server:
        for place in (f"{server.url}/a.bin", str(folder / "a.bin")):
            with pytest.raises(ReadError, match=r"a\.bin"):
                fetch(place, SIZE + 5, 10)
            with pytest.raises(ReadError, match="truncated"):
                fetch(place, SIZE - 5, 10, QUICK)
            data, size = fetch_some(place, SIZE - 5, 10, QUICK)
            assert len(data) == 5
            assert size == SIZE


def test_a_failure_affects_no_other_request(folder):
    with serve(folder) as server:
        requests = [
            RangeRequest(f"{server.url}/a.bin", [1], [10]),
            RangeRequest(f"{server.url}/none.bin", [1, 9], [2, 2]),
            RangeRequest(f"{server.url}/b.bin", [1], [10]),
        ]
        first, second, third = stream(requests)
        check(folder, [requests[0], requests[2]], [first, third])
        for part in second:
            with pytest.raises(ReadError, match=r"none\.bin"):
                part.read()


def test_a_server_that_does_not_answer_is_given_up(folder):
    with serve(folder, latency_s=3) as server, pytest.raises(ReadError, match="after 2 tries: no answer in time"):
        fetch(f"{server.url}/a.bin", 1, 1, Network(attempts=2, first_wait_s=0.001, timeout_s=0.2))


def test_retries_end_when_the_caller_stops(folder):
    stop = threading.Event()
    stop.set()
    with serve(folder, faults=Faults(error=1.0)) as server:
        with pytest.raises(ReadError, match="503"):
            fetch(f"{server.url}/a.bin", 1, 1, stop=stop)
        assert server.requests == 1


def test_settings_and_urls_that_make_no_sense_are_refused():
    with pytest.raises(UsageError, match="at least 1"):
        Network(max_concurrent=0)
    with pytest.raises(ReadError, match="unknown kind of URL"):
        fetch("ftp://host/file", 0, 1)
    with pytest.raises(ReadError, match=r"^s3://bucket/file: buckets are read anonymously"):
        fetch("s3://bucket/file?signature=1", 0, 1)
    assert os.environ.get("AWS_ENDPOINT_URL") is None  # these tests rely on no setting


def test_wrong_lengths_are_counted_by_themselves(folder, monkeypatch):
    """Two answers of 503 before one of a wrong length were as good as three wrong lengths: given up."""
    kinds = iter(["error", "error", "wrong_length", "error", "lie", None])
    monkeypatch.setattr("rangeserver.RangeServer._fault", lambda self, path, first: next(kinds))
    with serve(folder) as server:
        assert len(fetch(f"{server.url}/a.bin", 10, 100, QUICK)) == 100
        assert server.requests == 6


FORKED = """
import os, sys
from gee_polygons.errors import ReadError
from gee_polygons.network.request import fetch
early = os.fork()
if early:
    os.waitpid(early, 0)
    fetch(sys.argv[1], 0, 10)
    late = os.fork()
    if late:
        os.waitpid(late, 0)
        sys.exit()
try:
    print(len(fetch(sys.argv[1], 0, 10)), flush=True)
except ReadError as error:
    print(error, flush=True)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_makes_requests_of_its_own(folder):
    import subprocess
    import sys

    with serve(folder) as server:
        command = [sys.executable, "-c", FORKED, f"{server.url}/a.bin"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["10", "10"]

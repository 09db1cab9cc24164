"""A server that misbehaves in every way known: the right bytes, or an error in one line; never more than asked for."""

import contextlib
import email.utils
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rangeserver import Faults, serve

from gee_polygons.errors import ReadError
from gee_polygons.network import hosts, http
from gee_polygons.network.ranges import RangeRequest, stream
from gee_polygons.network.request import Network, fetch, fetch_end, fetch_whole
from gee_polygons.progress import report_progress

DATA = random.Random(0).randbytes(300_000)
FIRST, LAST = 1000, 250_999
NETWORK = Network(attempts=5, first_wait_s=0.001, longest_wait_s=0.01, timeout_s=0.4)
LIMIT = 12_000_000  # bytes that the client may take of an endless answer: those in the system's buffers


class Client:
    """One request to the server, and what it is answered."""

    def __init__(self, connection, head, server):
        self.connection, self.server = connection, server
        self.first, self.last = (int(n) for n in head.partition(b"bytes=")[2].split(b"\r")[0].split(b"-"))

    def say(self, status="206 Partial Content", body=None, length=None, headers="", version="1.1"):
        data = DATA[self.first : self.last + 1] if body is None else body
        stated = f"Content-Length: {len(data) if length is None else length}\r\n" if length != "" else ""
        if "Content-Range" not in headers:
            headers += f"Content-Range: bytes {self.first}-{self.last}/{len(DATA)}\r\n"
        self.send(f"HTTP/{version} {status}\r\n{stated}{headers}\r\n".encode() + data)

    def send(self, data):
        self.connection.sendall(data)
        self.server.sent += len(data)

    def endlessly(self, data):
        for _ in range(100_000):
            self.send(data)

    def be_silent(self):
        self.connection.recv(1)  # until the client goes


def good(client):
    client.say()
    return True


def status(text, headers=""):
    return lambda client: client.say(text, b"", headers=headers + "Content-Range: none\r\n")


def half(client, headers=""):
    data = DATA[client.first : client.last + 1]
    client.say(body=data[: len(data) // 2], length=len(data), headers=headers)


def half_then_silent(client):
    half(client)
    client.be_silent()


def trickle(client):
    client.say(body=b"", length=client.last - client.first + 1)
    for byte in DATA[client.first :]:
        client.send(bytes([byte]))
        time.sleep(0.02)


def endless(client, **how):
    client.say(**how)
    client.endlessly(b"x" * 65536)


def endless_chunks(client):
    client.say(body=b"", length="", headers="Transfer-Encoding: chunked\r\n")
    client.endlessly(b"10000\r\n" + b"x" * 65536 + b"\r\n")


def chunks(client, more=b""):
    client.say(body=b"", length="", headers="Transfer-Encoding: chunked\r\n")
    data = DATA[client.first : client.last + 1] + more
    for i in range(0, len(data), 9999):
        client.send(b"%x\r\n%b\r\n" % (len(data[i : i + 9999]), data[i : i + 9999]))
    client.send(b"0\r\n\r\n")
    return True


def dribble(client):
    """Send the headers, their ends bare, byte by byte, and the body in odd pieces."""
    sent = []
    client.send, send = sent.append, client.send
    client.say()
    head, _, body = b"".join(sent).partition(b"\r\n\r\n")
    for i in range(len(head) + 2):
        send((head.replace(b"\r\n", b"\n") + b"\n\n")[i : i + 1])
    for i in range(0, len(body), 7919):
        send(body[i : i + 7919])


CHUNKED = "Transfer-Encoding: chunked\r\n"
FAULTY = "faulty server"
PAST = email.utils.formatdate(0, usegmt=True)
AHEAD = "Date: {}\r\nRetry-After: {}\r\n".format(*(email.utils.formatdate(4e9 + i, usegmt=True) for i in (0, 1)))
TABLE = {  # what is answered to one request after the other (the last again); a part of the error; number of requests
    "good": ([good], None, 1),
    "overloaded for a while": ([status("503 Busy"), status("429 Too Many"), status("500 Oh"), good], None, 4),
    "overloaded for good": ([status("503 Busy")], "the server answers 503", 5),
    "asks to wait": ([status("503 Busy", "Retry-After: 1\r\n"), good], None, 2),
    "asks to wait for ages": ([status("503 Busy", "Retry-After: 99999999\r\n"), good], None, 2),
    "asks to wait until a date": ([status("503 Busy", f"Retry-After: {PAST}\r\n"), good], None, 2),
    "asks to wait by its own clock": ([status("503 Busy", AHEAD), good], None, 2),
    "asks to wait for nonsense": ([status("503 Busy", "Retry-After: -1e999 \xff\r\n"), good], None, 2),
    "needs credentials": ([status("401 Unauthorized")], "401", 1),
    "forbids": ([status("403 Forbidden")], "403", 1),
    "has no such file": ([status("404 Not Found")], "no such file", 1),
    "has it no more": ([status("410 Gone")], "410", 1),
    "says where it is": ([status("302 Found", "Location: /other\r\n"), good], None, 2),
    "redirects in a circle": ([status("302 Found", "Location: /a\r\n")], "in a circle", 10),
    "redirects to a file": ([status("302 Found", "Location: file:///etc/passwd\r\n")], "no valid http", 1),
    "redirects to no port": ([status("302 Found", "Location: https://a:99999/\r\n")], "no valid http", 1),
    "redirects to no address": ([status("302 Found", "Location: http://[\r\n")], "no valid http", 1),
    "says nothing": ([Client.be_silent, good], None, 2),
    "says nothing for good": ([Client.be_silent], "no answer in time", 5),
    "goes silent in the middle": ([half_then_silent, good], None, 2),
    "breaks off in the middle": ([half, half, half, half, half, half, good], None, 7),
    "goes at once": ([lambda client: None, good], None, 2),
    "trickles": ([trickle, good], None, 2),
    "changes the file meanwhile": ([lambda client: half(client, 'ETag: "1"\r\n'), good, good], None, 3),
    "sends chunks": ([chunks], None, 1),
    "sends a chunk too many": ([lambda client: chunks(client, b"xyz")], FAULTY, 3),
    "sends a chunk too many once": ([lambda client: chunks(client, b"xyz"), good], None, 2),
    "sends no chunks": ([lambda client: client.say(length="", headers=CHUNKED), good], None, 2),
    "compresses chunks": ([lambda client: client.say(length="", headers=CHUNKED.replace(" c", " gzip, c"))], FAULTY, 3),
    "compresses": ([lambda client: client.say(headers="Content-Encoding: gzip\r\n")], FAULTY, 3),
    "says it came in chunks": ([lambda client: client.say(headers="Content-Encoding: aws-chunked\r\n")], None, 1),
    "says two lengths": ([lambda client: client.say(headers="Content-Length: 3\r\n")], FAULTY, 3),
    "says a length twice": ([lambda client: client.say(headers="Content-Length: 250000\r\n")], None, 1),
    "continues for ever": ([lambda client: client.endlessly(b"HTTP/1.1 100 Continue\r\n\r\n"), good], None, 2),
    "was asked by mistake": ([status("421 Misdirected"), status("425 Too Early"), good], None, 3),
    "dribbles": ([dribble], None, 1),
    "speaks HTTP 1.0": ([lambda client: client.say(version="1.0")], None, 1),
    "says no length": ([lambda client: client.say(length="", headers="Connection: close\r\n")], None, 1),
    "continues first": ([lambda client: [client.send(b"HTTP/1.1 100 Continue\r\n\r\n"), client.say()]], None, 1),
    "sends all of it": ([lambda client: client.say("200 OK", DATA)], "byte ranges", 1),
    "sends less than it says": ([lambda client: client.say(body=b"abc", length=3)], FAULTY, 3),
    "sends another part": ([lambda client: client.say(headers="Content-Range: bytes 5-9/300000\r\n")], FAULTY, 3),
    "doesn't say which part": ([lambda client: client.say(headers="Content-Range: bytes */*\r\n")], FAULTY, 3),
    "says a negative length": ([lambda client: client.say(length=-5, headers="Connection: close\r\n")], FAULTY, 3),
    "never ends, as it says": ([lambda client: endless(client, length=10**13)], FAULTY, 3),
    "never ends, without a length": ([lambda client: endless(client, length="")], FAULTY, 3),
    "never ends, in chunks": ([endless_chunks], FAULTY, 3),
    "sends more than it says": ([endless], None, 1),
    "never ends its headers": ([lambda client: client.endlessly(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 99)], "HTTP", 5),
    "speaks no HTTP": ([lambda client: client.send(b"220 mail.example ESMTP\r\n")], "HTTP", 5),
    "sends noise": ([lambda client: client.send(DATA)], "HTTP", 5),
}  # fmt: skip


class HostileServer:
    """Answers requests as a script has it."""

    def __init__(self, script, tls=None):
        self.script, self.sent, self.firsts, self.heads, self.tls = script, 0, [], [], tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._socket.getsockname()[1]}/a"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=self._socket.accept()[:1], daemon=True).start()

    def _open(self, connection):
        return self.tls.wrap_socket(connection, server_side=True) if self.tls else connection

    def _serve(self, connection):
        with contextlib.suppress(OSError), self._open(connection) as connection:
            goes_on = True
            while goes_on:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += (more := connection.recv(9999))
                    if not more:
                        return
                client = Client(connection, head, self)
                answer = self.script[min(len(self.firsts), len(self.script) - 1)]
                self.firsts.append(client.first)
                self.heads.append(head.decode())
                goes_on = answer(client)


@pytest.mark.parametrize("behaviour", TABLE)
def test_the_right_bytes_or_an_error_in_one_line(behaviour, monkeypatch):
    script, error, n_requests = TABLE[behaviour]
    monkeypatch.setattr(hosts, "_LEAST_SILENCE_S", 0.3)
    monkeypatch.setattr(http, "_SLICE_S", 0.1)
    server = HostileServer(script)
    network = Network(**{**vars(NETWORK), "give_up_after_s": 2.0}) if "ages" in behaviour else NETWORK
    began = time.monotonic()
    if error is None:
        assert bytes(fetch(server.url, FIRST, LAST + 1 - FIRST, network)) == DATA[FIRST : LAST + 1]
    else:
        with pytest.raises(ReadError) as caught:
            fetch(server.url, FIRST, LAST + 1 - FIRST, network)
        assert str(caught.value).startswith(f"{server.url}: can't be read")
        assert error in str(caught.value)
        assert "\n" not in str(caught.value)
    took = time.monotonic() - began
    assert len(server.firsts) == n_requests
    assert server.sent < n_requests * LIMIT + len(DATA)
    assert took < 20  # a silence that nobody limits lasts 30 s
    if "asks to wait" in behaviour:
        assert took > {"asks to wait": 0.9, "asks to wait for ages": 1.5}.get(behaviour, 0)
    if "in the middle" in behaviour:  # what had arrived isn't asked for again
        assert server.firsts == sorted(set(server.firsts))


def test_a_file_that_changes_between_requests_is_not_mixed():
    def version(number):
        return lambda client: [client.say(headers=f'ETag: "{number}"\r\n')]

    server = HostileServer([version(1)] * 2 + [version(2)])
    fetch(server.url, 0, 99, NETWORK)
    fetch(server.url, 1000, 99, NETWORK)
    with pytest.raises(ReadError, match="after 3 tries: the file has changed since it was opened: open it again"):
        fetch(server.url, 2000, 99, NETWORK)
    fetch(server.url, 0, 99, NETWORK)  # opened again
    fetch(server.url, 2000, 99, NETWORK)
    each_anew = HostileServer([version(number) for number in range(9)])
    for first in range(9):
        fetch(each_anew.url, first, 99, NETWORK)


def test_what_arrives_on_a_kept_connection_without_a_request_answers_none():
    def good_and_more(client):
        good(client)
        time.sleep(0.05)
        client.say("404 Not Found", b"")
        return True

    server = HostileServer([good_and_more])
    for _ in range(2):
        assert bytes(fetch(server.url, FIRST, 99, NETWORK)) == DATA[FIRST : FIRST + 99]
        time.sleep(0.2)


def test_an_endless_file_read_as_a_whole_is_cut(monkeypatch):
    monkeypatch.setattr("gee_polygons.network.request._MOST_WHOLE_BYTES", 2**20)
    monkeypatch.setattr(Client, "__init__", lambda self, connection, head, server: vars(self).update(
        connection=connection, server=server, first=0, last=9))  # fmt: skip
    for answer in (lambda client: endless(client, status="200 OK", length=10**13), endless_chunks_of_all):
        server = HostileServer([answer])
        with pytest.raises(ReadError, match="longer than 1 MB"):
            fetch_whole(server.url, NETWORK)
        assert server.sent < LIMIT + 2**21


def endless_chunks_of_all(client):
    client.say("200 OK", b"", "", "Transfer-Encoding: chunked\r\n")
    client.endlessly(b"10000\r\n" + b"x" * 65536 + b"\r\n")


# --- slow lines and outages


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("lines")
    (path / "a.bin").write_bytes(DATA * 10)
    return path


def read_all(url, n=30, size=30_000, network=None):
    """Read ranges that aren't merged; return whether all bytes are right."""
    starts = [1 + i * 99_000 for i in range(n)]
    requests = [RangeRequest(f"{url}/a.bin", [start], [size]) for start in starts]
    whole = DATA * 10
    for start, ranges in zip(starts, stream(requests, network or Network()), strict=True):
        if bytes(ranges[0]) != whole[start : start + size]:
            return False
    return True


@pytest.mark.parametrize(("rate", "latency"), [(1_000_000, 0.02), (8_000_000, 0.2)])
def test_a_slow_and_shaky_line_is_used_to_the_full(folder, rate, latency):
    faults = Faults(stall=0.05, drop=0.05, seed=1)
    with serve(folder, latency_s=latency, rate=rate, faults=faults) as server:
        began = time.monotonic()
        assert read_all(server.url)
        least = 30 * 30_000 / rate
        assert time.monotonic() - began < least / 0.8 + 15  # on a busy machine; a silence could last 30 s


def test_concurrency_follows_the_line(folder, monkeypatch):
    monkeypatch.setattr(hosts, "_SECONDS_UNDER_WAY", 0.3)
    with serve(folder, rate=600_000) as server:  # 16 of 30 kB take longer
        host = hosts.host_of(server.url)
        host._allowed = 128.0
        assert read_all(server.url)
        assert 2 <= host._allowed < 64


def test_an_outage_is_waited_for_and_said(folder, monkeypatch, capsys):
    monkeypatch.setattr(hosts, "_NOTICE_AFTER_S", 0.5)
    with serve(folder, latency_s=0.02) as server, report_progress(True, 30, unit="block", title="extract"):
        assert read_all(server.url, 2)
        server.close()
        timer = threading.Timer(2.5, server.start)
        timer.start()
        assert read_all(server.url)
        before = server.requests
        assert read_all(server.url)
        assert server.requests - before == 30
    assert "waiting for the server, 1 s" in capsys.readouterr().err


def test_patience_has_an_end_and_all_requests_share_it(folder):
    with serve(folder) as server:
        assert read_all(server.url, 2)
        server.close()
        began = time.monotonic()
        with pytest.raises(ReadError, match="no connection, or it was dropped"):
            read_all(server.url, network=Network(give_up_after_s=1.5))
        assert 1.4 <= time.monotonic() - began < 20  # one after the other they would take 45 s


def test_the_last_bytes_are_read_of_a_server_that_counts_from_the_start(folder):
    with serve(folder) as server:
        server.counts_from_the_end = False
        data, size = fetch_end(f"{server.url}/a.bin", 100, NETWORK)
        assert bytes(data) == DATA[-100:]
        assert size == len(DATA) * 10


WAITING = """
import sys
from gee_polygons.extract import extract_embeddings
from gee_polygons.sources.cog import CogSource
import geopandas
sites = geopandas.read_file(sys.argv[2])
def say(done, total):
    print(done, flush=True)
extract_embeddings(sites, source=CogSource(sys.argv[1]), years=[2023], progress=say, max_workers=2)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGINT") or os.name == "nt", reason="needs signals")
def test_ctrl_c_ends_the_wait(sample_archive, sample_sites, tmp_path):
    sample_sites[:5].to_geodataframe().to_file(tmp_path / "sites.geojson")
    with serve(sample_archive.parent, faults=Faults(error=1.0, headers=False, only=".tiff")) as server:
        command = [sys.executable, "-c", WAITING, f"{server.url}/aef_index.parquet", str(tmp_path / "sites.geojson")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while server.statuses[503] < 5 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=30)  # of 300 that it would go on trying
        assert "KeyboardInterrupt" in shown


FIFTY = """
import sys
from contextlib import ExitStack
from rangeserver import serve
with ExitStack() as stack:
    print(*(stack.enter_context(serve(sys.argv[1], latency_s=0.01)).url for _ in range(50)), flush=True)
    input()
"""


def count_files():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files as Linux lists them")
def test_fifty_servers_leave_neither_threads_nor_files(folder):
    """As many threads as requests may be under way, a kept connection to each server, and nothing that stays open."""
    with subprocess.Popen([sys.executable, "-c", FIFTY, str(folder)], cwd=Path(__file__).parent, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # fmt: skip
        urls = process.stdout.readline().split()
        http._close_idle()
        threads, files = threading.active_count(), count_files()
        most = [0, 0]
        for _ in range(3):
            requests = [RangeRequest(f"{url}/a.bin", [1 + i * 99_000], [500]) for i in range(4) for url in urls]
            for request, ranges in zip(requests, stream(requests, Network(max_concurrent=20)), strict=True):
                assert bytes(ranges[0]) == (DATA * 10)[request.starts[0] : request.starts[0] + 500]
                found = threading.active_count() - threads, count_files() - files
                most = [max(pair) for pair in zip(most, found, strict=True)]
        assert most[0] <= 25  # and a few that look after them
        assert most[1] <= 50 + 20  # a connection is kept to each, twenty are in use
        http._close_idle()
        assert count_files() <= files  # what earlier tests left may have been closed meanwhile
        process.communicate("\n", timeout=60)

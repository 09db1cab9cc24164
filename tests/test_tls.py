"""HTTPS, proxies, names and addresses: real TLS servers on 127.0.0.1 with a certificate made here."""

import contextlib
import multiprocessing
import os
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest
from rangeserver import Faults, serve
from test_hostile_server import DATA, FIRST, LAST, NETWORK, HostileServer, good, half, half_then_silent, status

from gee_polygons.errors import ReadError
from gee_polygons.network import http
from gee_polygons.network.ranges import RangeRequest, stream
from gee_polygons.network.request import Network, fetch

N = LAST + 1 - FIRST


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A file with a certificate for 127.0.0.1 and `localhost`, and its key."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -out {path} -keyout {path}.key"
    names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    try:
        subprocess.run([*command.split(), *names], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs the command openssl")
    path.write_text(path.read_text() + path.with_name("server.pem.key").read_text())
    return path


@pytest.fixture
def tls(certificate, monkeypatch):
    """A TLS server's settings; its certificate is trusted by way of the environment, as users do it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    start_afresh()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    yield context
    start_afresh()


def start_afresh():
    http._tls.cache_clear()
    http._proxy.cache_clear()
    http._route.cache_clear()
    http._close_idle()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tls_data")
    (path / "a.bin").write_bytes(DATA * 40)
    return path


def read_all(url, n=128, size=5_000, network=None):
    starts = [1 + i * 90_000 for i in range(n)]
    requests = [RangeRequest(f"{url}/a.bin", [start], [size]) for start in starts]
    whole = DATA * 40
    answers = zip(starts, stream(requests, network or Network()), strict=True)
    return all(bytes(ranges[0]) == whole[start : start + size] for start, ranges in answers)


def count_connections(server):
    """Count the connections that a `RangeServer` takes from now on."""
    seen, serve_one = [], server._serve

    def counted(connection):
        seen.append(connection)
        serve_one(connection)

    server._serve = counted
    return seen


@pytest.mark.parametrize("script", [[good], [half, good], [half_then_silent, good], [lambda client: None, good]])
def test_https_gives_the_same_bytes_whatever_breaks(tls, script, monkeypatch):
    monkeypatch.setattr("gee_polygons.network.hosts._LEAST_SILENCE_S", 0.3)
    server = HostileServer(script, tls)
    assert bytes(fetch(server.url, FIRST, N, NETWORK)) == DATA[FIRST : LAST + 1]
    assert server.firsts == sorted(server.firsts)
    assert len(server.firsts) == len(script)


def test_many_requests_share_connections_that_may_have_closed_silently(tls, folder):
    with serve(folder, tls=tls, latency_s=0.02, faults=Faults(drop=0.03, stall=0.02, seed=2)) as server:
        connections = count_connections(server)
        assert read_all(server.url)
        assert len(connections) < 128  # kept for the next request
        server.close()  # all of them are closed, and the client isn't told
        server.start()
        server.reset(Faults())
        assert read_all(server.url, 8)
        assert server.requests == 8  # which costs no failed try


def test_a_wrong_certificate_is_refused_in_one_line(tls, folder, monkeypatch):
    with serve(folder, tls=tls) as server:
        with monkeypatch.context() as patched:
            patched.setattr(socket, "getaddrinfo", addresses("127.0.0.1"))
            with pytest.raises(ReadError, match=r"bin: can't be read: the server's certificate isn't trusted: Host.*$"):
                fetch(f"https://tiles.example:{server.port}/a.bin", 0, 9, NETWORK)
        monkeypatch.delenv("SSL_CERT_FILE")
        start_afresh()
        with pytest.raises(ReadError, match="isn't trusted: self-signed certificate"):
            fetch(f"{server.url}/a.bin", 0, 9, NETWORK)
    plain = HostileServer([good])
    monkeypatch.setattr(HostileServer, "_open", no_tls)
    with pytest.raises(ReadError, match=r"after 3 tries: no encrypted connection \(\w+\)"):
        fetch(plain.url.replace("http", "https"), 0, 9, NETWORK)


def no_tls(server, connection):
    with connection:
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    raise ConnectionError


def test_a_redirect_to_another_host_gets_no_secret(tls):
    other = HostileServer([good], tls)
    place = other.url.replace("127.0.0.1", "localhost")
    server = HostileServer([status("302 Found", f"Location: {place}\r\n")], tls)
    signed = server.url.replace("https://", "https://me:word@") + "?X-Signature=secret"
    assert bytes(fetch(signed, FIRST, N, NETWORK)) == DATA[FIRST : LAST + 1]
    assert "Authorization: Basic bWU6d29yZA==" in server.heads[0]
    assert "GET /a?X-Signature=secret HTTP/1.1" in server.heads[0]
    for secret in ("Authorization", "secret", "me:word"):
        assert secret not in other.heads[0]


def test_a_redirect_may_not_end_encryption(tls):
    plain = HostileServer([good])
    server = HostileServer([status("302 Found", f"Location: {plain.url}\r\n")], tls)
    with pytest.raises(ReadError, match=r"/a: can't be read: the server redirects from https to http, where"):
        fetch(server.url, FIRST, N, NETWORK)
    assert (len(server.heads), plain.heads) == (1, [])
    plain.script, server.script = [status("302 Found", f"Location: {server.url}\r\n")], [good]
    assert bytes(fetch(plain.url, FIRST, N, NETWORK)) == DATA[FIRST : LAST + 1]


class Proxy:
    """A proxy: opens tunnels for CONNECT, and notes what it is asked for."""

    def __init__(self, refusal=""):
        self.refusal, self.heads = refusal, []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://me:word@127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            threading.Thread(target=self._serve, args=self._socket.accept()[:1], daemon=True).start()

    def _serve(self, connection):
        head = connection.recv(9999).decode()
        self.heads.append(head)
        if self.refusal:
            connection.sendall(f"HTTP/1.1 {self.refusal}\r\nContent-Length: 0\r\n\r\n".encode())
            return connection.close()
        method, target, _ = head.split("\r\n")[0].split(" ")
        server = socket.create_connection(("127.0.0.1", int(target.rpartition(":")[2].split("/")[0])))
        if method == "CONNECT":
            connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        else:
            server.sendall(head.encode())
        threading.Thread(target=self._pump, args=(server, connection), daemon=True).start()
        self._pump(connection, server)

    def _pump(self, source, target):
        with contextlib.suppress(OSError), source, target:
            while data := source.recv(65536):
                target.sendall(data)


def test_a_proxy_is_asked_for_a_tunnel_and_sees_no_secret_of_the_server(tls, monkeypatch):
    proxy = Proxy()
    monkeypatch.setenv("https_proxy", proxy.url)
    monkeypatch.setenv("http_proxy", proxy.url)
    server, plain = HostileServer([good], tls), HostileServer([good])
    for url in (server.url, plain.url):
        assert bytes(fetch(url.replace("://", "://you:key@") + "?sig=1", FIRST, N, NETWORK)) == DATA[FIRST : LAST + 1]
    tunnel, whole = proxy.heads
    assert tunnel.startswith(f"CONNECT {server.url[8:-2]} HTTP/1.")
    assert "Proxy-Authorization: Basic bWU6d29yZA==" in tunnel
    assert "Proxy" not in server.heads[0]
    for secret in ("sig=1", "eW91OmtleQ"):
        assert secret not in tunnel
    assert whole.startswith(f"GET {plain.url}?sig=1 HTTP/1.1\r\nHost: {plain.url[7:-2]}\r\n")
    assert "you:key" not in whole


@pytest.mark.parametrize(
    ("refusal", "says"),
    [("407 Proxy Authentication Required", "the proxy answers 407"), ("502 Bad", "the proxy answers 502 after")],
)
def test_what_a_proxy_refuses_is_said(tls, monkeypatch, refusal, says):
    monkeypatch.setenv("https_proxy", Proxy(refusal).url)
    with pytest.raises(ReadError) as caught:
        fetch("https://127.0.0.1:1/a", FIRST, N, NETWORK)
    tried = " after 5 tries" if " after" in says else ""
    assert str(caught.value) == f"https://127.0.0.1:1/a: can't be read{tried}: {says.removesuffix(' after')}"


def read_in_child(url):
    os._exit(0 if read_all(url, 20) else 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_leaves_its_parents_encrypted_connections_alone(tls, folder):
    with serve(folder, tls=tls) as server:
        connections = count_connections(server)
        assert read_all(server.url, 20)
        ours = len(connections)
        child = multiprocessing.get_context("fork").Process(target=read_in_child, args=(server.url,))
        child.start()
        child.join(30)
        assert child.exitcode == 0
        theirs = len(connections)
        assert theirs > ours
        assert read_all(server.url, 1)
        assert len(connections) == theirs  # the parent's are as good as before


# --- names, addresses, and the end of a process


def addresses(*found):
    """An answer of the system to whoever asks for the addresses of a server."""

    def getaddrinfo(host, port, *args, **options):
        return [
            (socket.AF_INET6 if ":" in where else socket.AF_INET, socket.SOCK_STREAM, 6, "", (where, port))
            for where in found
        ]

    return getaddrinfo


def test_the_next_address_is_tried_soon_and_first_from_then_on(folder, monkeypatch):
    full = socket.create_server(("127.0.0.3", 0), backlog=0)  # takes no connection, and says nothing
    fillers = [socket.socket() for _ in range(4)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(full.getsockname())
    with serve(folder) as server:
        server._socket.close()
        server._socket = socket.create_server(("127.0.0.1", full.getsockname()[1]))
        threading.Thread(target=server._accept, args=(server._socket,), daemon=True).start()
        monkeypatch.setattr(socket, "getaddrinfo", addresses("::1", "127.0.0.3", "127.0.0.1"))
        took = []
        for seconds in (0.3, 5.0):  # of the second nothing is waited for
            monkeypatch.setattr(http, "_NEXT_ADDRESS_S", seconds)
            began = time.monotonic()
            data = fetch(f"http://tiles.example:{full.getsockname()[1]}/a.bin", 0, 99, Network(attempts=1))
            assert bytes(data) == DATA[:99]
            took.append(time.monotonic() - began)
            http._close_idle()
        assert took[0] > 0.25
        assert max(took) < 4
    for each in (*fillers, full):
        each.close()


def test_an_unknown_name_is_said_at_once_and_a_known_one_is_waited_for(folder, monkeypatch):
    url = "http://no-such-server.invalid/a.bin"

    def unknown(*args, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    says = "no address is known for no-such-server.invalid: check the name, or the network"
    with pytest.raises(ReadError) as caught:
        fetch(url, 0, 9)
    assert str(caught.value) == f"{url}: can't be read: {says}"
    monkeypatch.setattr(http, "_found", {"no-such-server.invalid"})  # it was there a minute ago
    with pytest.raises(ReadError, match="after 3 tries: no address"):
        fetch(url, 0, 9, Network(attempts=3, first_wait_s=0.001))


ENDING = """
import sys, threading
from gee_polygons.network.ranges import RangeRequest, stream
answers = [ranges[0] for ranges in stream([RangeRequest(sys.argv[1], [i * 90_000], [9]) for i in range(128)])]
threading.Timer(1, lambda: print("under way", flush=True)).start()
if sys.argv[2] == "ends":
    answers[0].read()
else:
    answers[1].read()
"""


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
@pytest.mark.parametrize("how", ["ends", "is interrupted"])
def test_a_process_ends_at_once_with_requests_under_way(tls, certificate, how):
    """128 connections: the first request is answered, the others wait in vain, in TLS's handshake or after it."""
    silent = HostileServer([good], tls)
    silent.script = [lambda client: good(client) if client.first == 0 else client.be_silent()]
    environment = {**os.environ, "SSL_CERT_FILE": str(certificate)}
    command = [sys.executable, "-W", "error", "-c", ENDING, silent.url, how]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE, env=environment, text=True
    )
    if how == "is interrupted":
        assert process.stdout.readline() == "under way\n"
        process.send_signal(2)
    _, shown = process.communicate(timeout=40)  # of 300 that it would go on trying
    assert ("KeyboardInterrupt" in shown) == (how == "is interrupted")

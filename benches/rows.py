"""Kinds of requests that mintgate is measured and trained with, and how they are made to pass through it.

Client and upstream are one thread: it writes a request, takes it at the other end, answers and reads the answer. The issuer
is `mintgate emulator`.
"""

import base64
import hashlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request

from callers import Http1, Http2, until

PATIENCE = 60
MANY = 1500
PARTY = "https://app.example.test"
SESSION = "sess_emulator_alice"
USUAL = 'session = ["bearer"]\ninject = [{ header = "authorization", prefix = "Bearer ", template = "custom_hasura", expires_in = "1h" }]'
COOKIE = "cookie: theme=dark; __client_uat=1700000000; __session={1}"
# A browser in production carries every token twice; {0} is the suffix.
SUFFIXED = "cookie: theme=dark; __client_uat=1700000000; __client_uat_{0}=1700000000; __session={1}; __session_{0}={1}"
SMALL = b'{"data":' + b'"' + b"x" * 89 + b'"}'
LARGE = b"x" * 100 * 1024
PIECE = 10 * 1024


class Row:
    """One kind of request: what the gateway is told, and what differs from a small GET with a bearer token."""

    def __init__(self, route=USUAL, access="errors", client=Http1, tokens=1, credential="authorization: Bearer {1}", body=SMALL):
        self.route, self.access, self.client = route, access, client
        self.tokens, self.credential, self.body = tokens, credential, body


ROWS = {
    "bearer": Row(),
    "cookie": Row(route=USUAL.replace("bearer", "cookie", 1), credential=COOKIE),
    "cookie with suffix": Row(route=USUAL.replace("bearer", "cookie", 1), credential=SUFFIXED),
    'access = "all"': Row(access="all"),
    "each session token new": Row(tokens=MANY),
    "session = []": Row(route="session = []", credential=None),
    "HTTP/2 in": Row(client=Http2),
    "an answer of 100 KiB in 10 pieces": Row(body=LARGE),
}


def listener():
    made = socket.create_server(("127.0.0.1", 0))
    made.settimeout(PATIENCE)
    return made


class Emulator:
    def __init__(self, binary, environment=None):
        self.binary, self.environment = binary, {**os.environ, **(environment or {})}

    def __enter__(self):
        command = [self.binary, "emulator", "--json", "--listen", "127.0.0.1:0", "--rate-limit", "off"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self.environment)
        self.facts = json.loads(self.process.stdout.readline())
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(PATIENCE)

    def tokens(self, count):
        """So many different ones of one session. They outlive every run."""
        at = f"{self.facts['api_url']}/_emulator/token?session={SESSION}&azp={PARTY}&expires_in_seconds="
        made = []
        for number in range(count):
            with urllib.request.urlopen(f"{at}{600 + number}", timeout=PATIENCE) as answer:
                made.append(answer.read().decode())
        return made


# The limits are wide: nothing may happen only because the machine is busy.
def configuration(row, emulator, upstream):
    return f"""
[clerk]
secret_key = {{ env = "CLERK_SECRET_KEY" }}
api_url = "{emulator['api_url']}"
publishable_key = "{emulator['publishable_key']}"
authorized_parties = ["{PARTY}"]
jwt_key = {{ file = "key.pem" }}
timeout = "60s"
[server]
listen = ["127.0.0.1:0"]
workers = 1
[log]
format = "json"
access = "{row.access}"
[upstreams.bench]
url = "http://127.0.0.1:{upstream}"
pool = {{ idle_timeout = "60s" }}
[[routes]]
name = "bench"
upstream = "bench"
{row.route}
"""


def pass_through(row, requests, emulator, tokens, command, environment=None, more=""):
    """Starts a gateway by `command`, to which its configuration is added, with `more` in front, has so many requests pass through
    it and ends it."""
    with tempfile.TemporaryDirectory() as directory, listener() as upstream:
        here = pathlib.Path(directory)
        here.joinpath("key.pem").write_text(emulator["jwt_key"])
        here.joinpath("mintgate.toml").write_text(more + configuration(row, emulator, upstream.getsockname()[1]))
        environment = {"PATH": os.environ["PATH"], "CLERK_SECRET_KEY": emulator["secret_key"], **(environment or {})}
        with open(here / "log", "w+") as log:
            gateway = subprocess.Popen([*command, "run", "--config", str(here / "mintgate.toml")], env=environment, stderr=log)
            try:
                address = listening(gateway, here / "log")
                drive(row, requests, address, upstream, tokens, suffix(emulator["publishable_key"]))
                gateway.send_signal(signal.SIGTERM)
                gateway.wait(PATIENCE)
            except BaseException:
                sys.stderr.write((here / "log").read_text())
                raise
            finally:
                gateway.kill()
                gateway.wait()


def listening(gateway, log):
    for _ in range(PATIENCE * 20):
        found = re.search(r'"address":"127\.0\.0\.1:(\d+)"', log.read_text())
        if found:
            return "127.0.0.1", int(found[1])
        try:
            raise SystemExit(f"the gateway ended: {gateway.wait(0.05)}")
        except subprocess.TimeoutExpired:
            pass
    raise SystemExit("the gateway does not listen")


def drive(row, requests, address, upstream, tokens, suffix):
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(row.body)
    pieces = [row.body[at : at + PIECE] for at in range(0, len(row.body), PIECE)]
    with socket.create_connection(address, PATIENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client, behind = row.client(connection), None
        for number in range(requests):
            token = tokens[number % len(tokens)]
            client.ask([row.credential.format(suffix, token)] if row.credential else [])
            if behind is None:
                behind, _ = upstream.accept()
                behind.settimeout(PATIENCE)
                behind.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            got = until(behind, b"\r\n\r\n")
            # What is counted is the whole work: the caller's token has gone, the minted one is there.
            if (b"\r\nauthorization: Bearer " in got) != bool(row.credential) or token.encode() in got:
                raise SystemExit(f"the upstream received {got!r}")
            behind.sendall(head + pieces[0])
            good = client.head() and client.body(len(pieces[0])) == pieces[0]
            for piece in pieces[1:]:
                behind.sendall(piece)
                good = good and client.body(len(piece)) == piece
            if not (good and client.end()):
                raise SystemExit(f"request {number} was not answered as it should be")
        behind.close()


def suffix(publishable_key):
    """What Clerk puts behind the names of an instance's cookies."""
    return base64.urlsafe_b64encode(hashlib.sha1(publishable_key.encode()).digest())[:8].decode()

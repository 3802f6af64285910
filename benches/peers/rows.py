"""The rows of the report: which peers, under which load, and what is looked at."""

import os
from dataclasses import dataclass
from typing import Callable

import load
from material_sets import FEW, FRESH, MANY, file
from peers import LARGE

SESSIONS, MANY_SESSIONS = 1000, 100_000


@dataclass(frozen=True)
class Variant:
    """One line of a row: a peer under a load. `warm` comes before, uncounted; `drive` is what is measured."""

    key: str
    peer: str
    warm: Callable
    drive: Callable
    label: str = ""
    base: str = ""


@dataclass(frozen=True)
class Row:
    """`base` is the variant that those without one of their own are compared with, `against` what the report calls it.
    `figure` names what the row is about."""

    title: str
    says: str
    variants: list
    base: str = ""
    against: str = "nginx"
    figure: str = "cpu_us"
    sets: tuple = (FEW,)
    rounds: int = 0
    bodies: bool = False


def few(url, seconds, **more):
    return load.wrk(url, seconds, file(FEW), SESSIONS, **more)


def settle(drive, url):
    """A second of the load, or as many more as 10 000 requests take: by then what compiles as it runs has compiled."""
    done = 0
    for _ in range(6):
        done += drive(url, 1)["requests"]
        if done >= 10_000:
            break


def alike(drive, *peers):
    """Each peer under the same load, which also warms it up."""
    return [Variant(peer, peer, lambda url: settle(drive, url), drive) for peer in peers]


def plain(*peers, **more):
    """Each peer with all its sessions in turn."""
    return alike(lambda url, seconds: few(url, seconds, **more), *peers)


def fresh(url, seconds):
    # The first thousand are those that the warm-up sent.
    return load.wrk(url, seconds, file(FRESH), 10**9, start=SESSIONS, once=True)


def every_new(*peers):
    known = lambda url, seconds: load.wrk(url, seconds, file(FRESH), SESSIONS)
    return [Variant(peer, peer, lambda url: settle(known, url), fresh) for peer in peers]


def steady(*peers):
    return alike(lambda url, seconds: load.constant(url, seconds, file(FEW), 5000), *peers)


def h2(*peers):
    return alike(lambda url, seconds: load.h2load(url, seconds, file(FEW)), *peers)


def fill_up(url):
    """Until one pass has sent every credential with good answers alone: then each session's token is in memory."""
    for seconds in range(5, 60, 5):
        seen = load.wrk(url, seconds, file(MANY), MANY_SESSIONS)
        if seen["requests"] > MANY_SESSIONS * 1.1 and seen["bad"] == 0:
            return
    raise SystemExit("the sessions did not all get their tokens")


def many(peer, name):
    """The same peer, with the sessions of one set and of the other."""
    def drive(sessions):
        return lambda url, seconds: load.wrk(url, seconds, file(MANY), sessions)

    base = f"{name}-1000"
    return [
        Variant(base, peer, lambda url: settle(drive(SESSIONS), url), drive(SESSIONS), f"{name}, 1000 sessions", base),
        Variant(f"{name}-100000", peer, fill_up, drive(MANY_SESSIONS), f"{name}, 100 000 sessions", base),
    ]


def million(url, _):
    """256 connections, opened anew every five seconds until there were a million requests."""
    total = {"requests": 0, "seconds": 0, "bad": 0}
    while total["requests"] < 1_000_000:
        seen = few(url, 5, connections=256)
        total = {key: value + seen[key] for key, value in total.items()}
    return total


OURS = ("mintgate", "mintgate-profiled") if "MINTGATE_PROFILED" in os.environ else ("mintgate",)
ALL = ("nginx", "haproxy", "nginx-lua", "envoy-jwt-cache", "envoy-jwt", "node", *OURS)

ROWS = {
    "warm": Row(
        "Warm sessions",
        "64 connections kept alive, 1000 sessions in turn, tokens in memory.",
        plain(*ALL), "nginx"),
    "verify": Row(
        "Every credential new",
        "As the first, but no credential is sent twice: each is verified. Minted tokens are in memory.",
        every_new(*OURS, "envoy-jwt"), "envoy-jwt", "Envoy", sets=(FRESH,)),
    "access": Row(
        "Every request logged",
        "As the first, with a line for each request written to a file.",
        plain("nginx", "mintgate", "nginx-log", "mintgate-log"), "nginx"),
    "rate": Row(
        "Latency at 5000 requests/s",
        "64 connections, one session; times count from when a request was due.",
        steady("nginx", *OURS), "nginx", figure="p99_us"),
    "tls": Row(
        "TLS in",
        "As the first, over TLS 1.3 with connections kept alive.",
        plain("nginx-tls", "mintgate-tls"), "nginx-tls"),
    "h2in": Row(
        "HTTP/2 in",
        "8 connections with 8 streams each, clear text, one session; HTTP/1.1 to the upstream.",
        h2("nginx-h2in", "mintgate-h2in"), "nginx-h2in"),
    "h2out": Row(
        "HTTP/2 out",
        "As the first, with clear-text HTTP/2 to the upstream. nginx has no HTTP/2 in `proxy_pass`: its line is `grpc_pass`, "
        "which sends one request at a time on a connection.",
        plain("nginx-h2out", "haproxy-h2out", "envoy-h2out", "mintgate-h2out"), "nginx-h2out"),
    "body-down": Row(
        "Answers of 100 KB",
        "As the first; bodies stream.",
        plain("nginx", "mintgate", target="/large"), "nginx", bodies=True),
    "body-up": Row(
        "Requests of 100 KB",
        "As the first; bodies stream, in nginx with `proxy_request_buffering off`.",
        plain("nginx", "mintgate", target="/sink", body=LARGE), "nginx", bodies=True),
    "rss": Row(
        "Memory",
        "Resident at 256 connections after a million requests, 1000 sessions in turn. nginx closes a connection after its "
        "default of 1000 requests, since it frees memory with it; in the other rows it keeps them.",
        [Variant(peer, peer, lambda url: settle(few, url), million) for peer in
         ("nginx-closed", "haproxy", "nginx-lua-closed", "envoy-jwt-cache", "node", *OURS)],
        "nginx-closed", figure="rss_mb", rounds=1),
    "ready": Row(
        "Ready after start",
        "From the start of the process to the first 200 of `/readyz`; the key is in a file.",
        [Variant("mintgate", "mintgate", None, None)], figure="ready_ms", rounds=11),
    "sessions": Row(
        "Many sessions",
        'As the first; mintgate with `max_bytes = "2GiB"` and `max_session_bytes = "1GiB"`. nginx, which looks at none of '
        "them, shows what the load itself changes.",
        many("mintgate-large", "mintgate") + many("nginx", "nginx"), against="1000 sessions", sets=(MANY,)),
}

# What --rows takes: a name of its own stands for two rows.
NAMES = {**{name: [name] for name in ROWS if not name.startswith("body-")}, "body": ["body-down", "body-up"]}

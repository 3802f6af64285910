"""What was measured on, and which versions: the head of the report."""

import hashlib
import json
import os
import platform
import re
import subprocess

from places import NODE, VENV, oha


def said(*argv):
    try:
        done = subprocess.run(argv, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout + done.stderr


def version(text):
    found = re.search(r"\d+\.\d+\.\d+", text)
    return found.group(0) if found else "none"


def machine():
    with open("/proc/cpuinfo") as file:
        model = re.search(r"^(?:model name|Model|CPU part)\s*:\s*(.+)$", file.read(), re.M)
    with open("/proc/meminfo") as file:
        memory = int(re.search(r"MemTotal:\s+(\d+)", file.read()).group(1)) / 2**20
    with open("/etc/os-release") as file:
        system = re.search(r'^PRETTY_NAME="?([^"\n]+)', file.read(), re.M)
    return {"processor": model.group(1) if model else platform.machine(), "cores": os.cpu_count(),
            "memory": f"{memory:.0f} GiB", "system": system.group(1), "kernel": platform.release()}


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:12]


def versions(mintgate, profiled):
    with open(os.path.join(NODE, "node_modules", "undici", "package.json")) as file:
        undici = json.load(file)["version"]
    lua = said("dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-http-lua").strip()
    return {
        "mintgate": f"{version(said(mintgate, '--version'))} ({digest(mintgate)})",
        **({"mintgate by deploy/build": f"({digest(profiled)})"} if profiled else {}),
        "nginx": version(said("nginx", "-v")),
        "its Lua module": version(lua),
        "HAProxy": version(said("haproxy", "-v")),
        "Envoy": version(said(os.path.join(VENV, "bin", "envoy"), "--version")),
        "Node": version(said("node", "-v")),
        "undici": undici,
        "wrk": version(said("wrk", "-v")),
        "h2load": version(said("h2load", "--version")),
        "oha": version(said(oha(), "--version")) if oha() else "none",
    }

"""An emulator and gateways as processes, for tests in Python. MINTGATE_BIN is the binary."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = os.path.realpath(os.environ.get("MINTGATE_BIN", ROOT / "target/debug/mintgate"))
PARTY = "https://app.example.com"
# Longer than anything that a busy machine needs; nothing waits for it but a test that fails.
PATIENCE = 60
# The templates that the configurations of deploy/ and docs/integrations.md name.
SEED = """
[[users]]
id = "user_ann"
[[sessions]]
id = "sess_ann"
user = "user_ann"
[[templates]]
name = "app"
claims = {}
[[templates]]
name = "api"
claims = { aud = "api" }
"""


def fetch(url, headers=None):
    """Status and body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=PATIENCE) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def until(what, held):
    end = time.monotonic() + PATIENCE
    while not (got := held()):
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.02)
    return got


@contextlib.contextmanager
def ended(process):
    """Nothing is left when the block is."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def emulator(work):
    seed = pathlib.Path(work, "seed.toml")
    seed.write_text(SEED)
    command = [BINARY, "emulator", "--json", "--listen", "127.0.0.1:0", "--rate-limit", "off", "--seed", str(seed)]
    with ended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as process:
        yield json.loads(process.stdout.readline())


def session_token(facts):
    """One that outlives every test."""
    status, body = fetch(f"{facts['api_url']}/_emulator/token?session=sess_ann&azp={PARTY}&expires_in_seconds=3600")
    assert status == 200, body
    return body.decode().strip()


class Gateway:
    """A process that runs `command`, which ends in `mintgate run ...`; known by what it logs."""

    def __init__(self, command, log, environment):
        self.log = pathlib.Path(log)
        with self.log.open("wb") as into:
            self.process = subprocess.Popen(command, stderr=into, env={**os.environ, **environment})
        self.address = until("it listens", lambda: self.said("listening"))
        self.admin = until("its probes", lambda: self.said("admin listening"))
        until("it is ready", lambda: fetch(f"http://{self.admin}/readyz")[0] == 200 or self.process.poll() is not None)
        self.lives()

    def lives(self):
        assert self.process.poll() is None, f"it has ended with {self.process.poll()}\n{self.log.read_text()}"

    def said(self, message):
        self.lives()
        for line in self.log.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                said = json.loads(line)
                if said.get("message", "").startswith(message):
                    return said["address"]
        return None

    def end(self):
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

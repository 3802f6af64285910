"""clerk-backend-api as a client of mintgate's token API before the emulator: only the base URL is another one.

The emulator is described by EMULATOR (the line of `mintgate emulator --json`); MINTGATE_BIN is the binary.
"""

import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request

from clerk_backend_api import Clerk, models
from clerk_backend_api.security.types import VerifyTokenOptions
from clerk_backend_api.security.verifytoken import verify_token

from support import COUNTS, check, part, refused

ABOUT = json.loads(os.environ["EMULATOR"])
ALICE, BOB = ABOUT["sessions"]
CONFIG = f"""[clerk]
secret_key = {{ env = "CLERK_SECRET_KEY" }}
api_url = "{ABOUT['api_url']}"
timeout = "2s"
[server]
listen = ["127.0.0.1:0"]
[log]
format = "json"
[token_api]
listen = "127.0.0.1:0"
callers = [{{ name = "app", token = {{ env = "CALLER_TOKEN" }}, templates = ["custom_hasura"] }}]
"""


def gateway(directory):
    """A gateway with a token API: its process, and where that listens."""
    path = os.path.join(directory, "mintgate.toml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(CONFIG)
    environment = os.environ | {"CLERK_SECRET_KEY": ABOUT["secret_key"], "CALLER_TOKEN": "a-callers-own-token"}
    command = [os.environ["MINTGATE_BIN"], "run", "--config", path]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    for line in process.stderr:
        if '"message":"token API listening' in line:
            return process, "http://" + json.loads(line)["address"]
    raise AssertionError("the gateway ended")


def helper(path, body=None):
    """A helper of the emulator's."""
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(f"{ABOUT['api_url']}/_emulator{path}", data, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        text = answer.read().decode()
        return json.loads(text) if text.startswith("{") else text


def mints(session):
    """What the emulator has minted for a session, by template."""
    return next(found for found in helper("/state")["sessions"] if found["id"] == session)["mints"]["templates"]


def main(url):
    """All checks."""

    def client(key):
        return Clerk(bearer_auth=key, server_url=url + "/v1", timeout_ms=10_000)

    clerk = client(ABOUT["secret_key"])
    mint = clerk.sessions.create_token_from_template

    def begin(user):
        return clerk.sessions.create(request={"user_id": user["user_id"]}).id

    @check
    def _():
        """a hundred calls one after the other are one mint"""
        session = begin(ALICE)
        tokens = {mint(session_id=session, template_name="plain").jwt for _ in range(100)}
        assert len(tokens) == 1 and part(tokens.pop(), 1)["sub"] == ALICE["user_id"]
        assert mints(session) == {"plain": 1}, mints(session)

    @check
    def _():
        """calls at once are one mint"""
        session = begin(BOB)
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            asked = [pool.submit(mint, session_id=session, template_name="custom_hasura") for _ in range(40)]
            assert len({done.result().jwt for done in asked}) == 1
        assert mints(session) == {"custom_hasura": 1}, mints(session)

    @check
    def _():
        """another life time is another token, and null is none"""
        session = begin(ALICE)
        for seconds in (None, 120, 120, None):
            claims = part(mint(session_id=session, template_name="plain", expires_in_seconds=seconds).jwt, 1)
            assert claims["exp"] - claims["iat"] == (seconds or 60)
        assert mints(session) == {"plain": 2}, mints(session)

    @check
    def _():
        """whatever else is asked for passes"""
        assert clerk.sessions.get(session_id=ALICE["id"]).user_id == ALICE["user_id"]
        assert BOB["id"] in [found.id for found in clerk.sessions.list(user_id=BOB["user_id"])]
        assert [key.kid for key in clerk.jwks.get_jwks().keys] == [ABOUT["kid"]]
        assert part(clerk.sessions.create_token(session_id=ALICE["id"]).jwt, 1)["sid"] == ALICE["id"]
        made = clerk.jwt_templates.create(request={"name": "made_in_python", "claims": {}, "lifetime": 90})
        claims = part(mint(session_id=BOB["id"], template_name="made_in_python").jwt, 1)
        assert claims["exp"] - claims["iat"] == 90
        assert clerk.jwt_templates.delete(template_id=made.id).deleted

    @check
    def _():
        """verify_token has its keys from there"""
        token = helper(f"/token?session={ALICE['id']}")
        options = VerifyTokenOptions(api_url=url, secret_key=ABOUT["secret_key"])
        assert verify_token(token, options)["sid"] == ALICE["id"]

    @check
    def _():
        """errors are what the SDK sees from Clerk"""
        wrong = client("sk_test_wrong").sessions.create_token_from_template
        error = refused(models.ClerkErrors, lambda: wrong(session_id=ALICE["id"], template_name="plain"))
        assert error.status_code == 401 and error.data.errors[0].code == "clerk_key_invalid"
        for session, template, text in (
            ("sess_none", "plain", "No session was found with id sess_none"),
            (ALICE["id"], "none", "No JWT template exists with name: none"),
        ):
            error = refused(models.ClerkErrors, lambda: mint(session_id=session, template_name=template))
            assert error.status_code == 404 and error.data.errors[0].long_message == text
        for seconds in (29, 315_360_001):
            call = lambda: mint(session_id=ALICE["id"], template_name="plain", expires_in_seconds=seconds)  # noqa: E731
            assert refused(models.SDKError, call).status_code == 422

    @check
    def _():
        """a revocation through it counts at once"""
        session = begin(BOB)
        assert mint(session_id=session, template_name="plain").jwt
        assert clerk.sessions.revoke(session_id=session).status == models.Status.REVOKED
        for call in (
            lambda: mint(session_id=session, template_name="plain"),
            lambda: clerk.sessions.create_token(session_id=session),
        ):
            assert refused(models.ClerkErrors, call).status_code == 404

    @check
    def _():
        """a caller without the key has the tokens of its templates"""
        local, session = client("a-callers-own-token"), begin(ALICE)
        for _ in range(3):
            assert local.sessions.create_token_from_template(session_id=session, template_name="custom_hasura").jwt
        assert mints(session) == {"custom_hasura": 1}
        assert local.sessions.get(session_id=session).user_id == ALICE["user_id"]
        call = lambda: local.sessions.create_token_from_template(session_id=session, template_name="plain")  # noqa: E731
        assert refused(models.ClerkErrors, call).status_code == 404
        assert refused(models.SDKError, lambda: local.users.list(request={})).status_code == 403

    @check
    def _():
        """an issuer that fails is no reason to ask for an hour"""
        session = begin(ALICE)
        helper("/faults", {"endpoint": "mint", "times": 1000, "status": 503})
        began = time.monotonic()
        error = refused(models.SDKError, lambda: mint(session_id=session, template_name="postgrest"))
        assert error.status_code == 429 and int(error.headers["retry-after"]) >= 1
        # The gateway's own patience is 2 s; with a 503 the SDK would go on for an hour.
        assert time.monotonic() - began < 60


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        PROCESS, URL = gateway(scratch)
        try:
            main(URL)
        finally:
            PROCESS.terminate()
    print(f"  clerk-backend-api through the token API: {COUNTS['passed']} passed, {COUNTS['failed']} failed")
    sys.exit(0 if COUNTS["failed"] == 0 and COUNTS["passed"] else 1)

"""clerk-backend-api as a client of the emulator: what the official Python SDK asks, reads and verifies.

The emulator is described by EMULATOR (the line of `mintgate emulator --json`), or is started with MINTGATE_BIN.
"""

import json
import os
import subprocess
import sys
import urllib.request

import httpx
from clerk_backend_api import Clerk, models
from clerk_backend_api.security import authenticate_request
from clerk_backend_api.security.types import AuthenticateRequestOptions, TokenVerificationError, VerifyTokenOptions
from clerk_backend_api.security.verifytoken import verify_token

from support import COUNTS, check, part, refused



def describe():
    """The description of the running emulator, and its process when it is ours."""
    if "EMULATOR" in os.environ:
        return json.loads(os.environ["EMULATOR"]), None
    command = [os.environ["MINTGATE_BIN"], "emulator", "--json", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return json.loads(process.stdout.readline()), process


ABOUT, PROCESS = describe()
ALICE, BOB = ABOUT["sessions"]


def client(key):
    """An SDK client for the emulator."""
    return Clerk(bearer_auth=key, server_url=ABOUT["api_url"] + "/v1", timeout_ms=10_000)


def fresh(session, query=""):
    """A session token, as a browser would hold it."""
    with urllib.request.urlopen(f"{ABOUT['api_url']}/_emulator/token?session={session}{query}") as answer:
        return answer.read().decode()


def helper(method, path, body=None):
    """A helper of the emulator's."""
    data = json.dumps(body).encode() if body is not None else None
    url = f"{ABOUT['api_url']}/_emulator{path}"
    request = urllib.request.Request(url, data, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


def main():
    """All checks."""
    clerk = client(ABOUT["secret_key"])
    mint = clerk.sessions.create_token_from_template

    @check
    def _():
        """a template token"""
        jwt = mint(session_id=ALICE["id"], template_name="custom_hasura").jwt
        assert part(jwt, 0)["cat"] == "cl_B7d4PD222AAA" and part(jwt, 0)["kid"] == ABOUT["kid"]
        claims = part(jwt, 1)
        assert claims["https://hasura.io/jwt/claims"]["x-hasura-user-id"] == ALICE["user_id"]
        assert claims["exp"] - claims["iat"] == 60 and "sid" not in claims

    @check
    def _():
        """a template token with an expiry, and with none given"""
        for asked, life in [(120, 120), (None, 60)]:
            claims = part(mint(session_id=ALICE["id"], template_name="plain", expires_in_seconds=asked).jwt, 1)
            assert claims["exp"] - claims["iat"] == life

    @check
    def _():
        """a session token, with and without an expiry"""
        claims = part(clerk.sessions.create_token(session_id=ALICE["id"]).jwt, 1)
        assert claims["sid"] == ALICE["id"] and claims["exp"] - claims["iat"] == 60
        claims = part(clerk.sessions.create_token(session_id=ALICE["id"], expires_in_seconds=90).jwt, 1)
        assert claims["exp"] - claims["iat"] == 90

    @check
    def _():
        """a session is read and listed"""
        session = clerk.sessions.get(session_id=ALICE["id"])
        assert session.user_id == ALICE["user_id"] and session.status == models.Status.ACTIVE
        assert session.last_active_organization_id == ALICE["organization_id"]
        listed = clerk.sessions.list(user_id=BOB["user_id"], status="active")
        assert BOB["id"] in [session.id for session in listed]

    @check
    def _():
        """the JWKS"""
        keys = clerk.jwks.get_jwks().keys
        assert [key.kid for key in keys] == [ABOUT["kid"]] and keys[0].kty == "RSA"

    @check
    def _():
        """templates are listed, made, changed and removed"""
        assert set(ABOUT["templates"]) <= {template.name for template in clerk.jwt_templates.list(limit=100)}
        # The SDK's model of claims has no members: whatever is given, it sends {}.
        made = clerk.jwt_templates.create(request={"name": "made_in_python", "claims": {}, "lifetime": 90})
        claims = part(mint(session_id=BOB["id"], template_name="made_in_python").jwt, 1)
        assert claims["exp"] - claims["iat"] == 90
        changed = clerk.jwt_templates.update(template_id=made.id, name="made_in_python", claims={}, lifetime=300)
        assert changed.lifetime == 300
        assert clerk.jwt_templates.delete(template_id=made.id).deleted

    @check
    def _():
        """a wrong key is 401"""
        stranger = client("sk_test_wrong").sessions.create_token_from_template
        error = refused(models.ClerkErrors, lambda: stranger(session_id=ALICE["id"], template_name="plain"))
        assert error.status_code == 401 and error.data.errors[0].code == "clerk_key_invalid"

    @check
    def _():
        """an unknown session is 404 and names the session"""
        error = refused(models.ClerkErrors, lambda: mint(session_id="sess_none", template_name="plain"))
        assert error.status_code == 404
        assert error.data.errors[0].long_message == "No session was found with id sess_none"

    @check
    def _():
        """an unknown template is 404 and names the template"""
        error = refused(models.ClerkErrors, lambda: mint(session_id=ALICE["id"], template_name="none"))
        assert error.status_code == 404
        assert error.data.errors[0].long_message == "No JWT template exists with name: none"

    @check
    def _():
        """a bad expiry is 422"""
        for seconds in (29, 315_360_001):
            call = lambda: mint(session_id=ALICE["id"], template_name="plain", expires_in_seconds=seconds)  # noqa: E731
            # The SDK knows no 422 here: it raises its general error with the body as text.
            assert refused(models.SDKError, call).status_code == 422

    @check
    def _():
        """a revoked session mints nothing and is 404"""
        session = clerk.sessions.create(request={"user_id": BOB["user_id"]}).id
        assert mint(session_id=session, template_name="plain").jwt
        assert clerk.sessions.revoke(session_id=session).status == models.Status.REVOKED
        assert clerk.sessions.get(session_id=session).status == models.Status.REVOKED
        for call in (
            lambda: mint(session_id=session, template_name="plain"),
            lambda: clerk.sessions.create_token(session_id=session),
        ):
            assert refused(models.ClerkErrors, call).status_code == 404

    @check
    def _():
        """a session with an organization; an unknown user and an unknown organization are 404"""
        made = clerk.sessions.create(
            request={"user_id": ALICE["user_id"], "active_organization_id": ALICE["organization_id"]}
        )
        assert made.last_active_organization_id == ALICE["organization_id"]
        for wrong in ({"user_id": "user_none"}, {"user_id": ALICE["user_id"], "active_organization_id": "org_none"}):
            error = refused(models.ClerkErrors, lambda: clerk.sessions.create(request=wrong))
            assert error.status_code == 404

    @check
    def _():
        """session tokens of both versions"""
        for version in (1, 2):
            token = fresh(ALICE["id"], f"&v={version}")
            claims = verify_token(token, VerifyTokenOptions(jwt_key=ABOUT["jwt_key"]))
            organization = claims["org_id"] if version == 1 else claims["o"]["id"]
            assert organization == ALICE["organization_id"] and ("v" in claims) == (version == 2)

    @check
    def _():
        """a pending and an impersonated session"""
        made = helper("POST", "/sessions", {"user_id": BOB["user_id"], "status": "pending", "tasks": ["setup-mfa"]})
        session = clerk.sessions.get(session_id=made["id"])
        assert session.status == models.Status.PENDING and session.tasks[0].key == "setup-mfa"
        assert part(fresh(made["id"]), 1)["sts"] == "pending"
        helper("PATCH", f"/sessions/{made['id']}", {"status": "active", "actor": {"sub": "user_support"}})
        assert part(fresh(made["id"]), 1)["act"] == {"sub": "user_support"}
        clerk.sessions.get(session_id=made["id"])

    @check
    def _():
        """scripted faults are what the SDK sees"""
        call = lambda: mint(session_id=ALICE["id"], template_name="plain")  # noqa: E731
        helper("POST", "/faults", {"endpoint": "mint", "times": 1, "status": 429, "retry_after": 4})
        error = refused(models.SDKError, call)
        assert error.status_code == 429 and error.headers["retry-after"] == "4"
        # The SDK tries again after a 5xx, not when the connection ends without an answer.
        helper("POST", "/faults", {"endpoint": "mint", "times": 1, "status": 503})
        assert call().jwt
        helper("POST", "/faults", {"endpoint": "mint", "times": 1, "reset": True})
        refused(httpx.RemoteProtocolError, call)
        helper("POST", "/faults", {"endpoint": "mint", "times": 1, "malformed": "content_type"})
        refused(models.SDKError, call)
        helper("DELETE", "/faults")

    @check
    def _():
        """verify_token with the JWKS and with the JWT key"""
        token = fresh(ALICE["id"], "&azp=https://app.example.com")
        parties = ["https://app.example.com"]
        for options in (
            VerifyTokenOptions(api_url=ABOUT["api_url"], secret_key=ABOUT["secret_key"], authorized_parties=parties),
            VerifyTokenOptions(jwt_key=ABOUT["jwt_key"]),
        ):
            assert verify_token(token, options)["sid"] == ALICE["id"]
        other = VerifyTokenOptions(jwt_key=ABOUT["jwt_key"], authorized_parties=["https://other.example.com"])
        refused(TokenVerificationError, lambda: verify_token(token, other))

    @check
    def _():
        """authenticate_request with the header"""

        class Request:  # pylint: disable=too-few-public-methods
            """What the SDK asks of a request."""

            headers = {"Authorization": f"Bearer {fresh(ALICE['id'])}"}

        state = authenticate_request(Request(), AuthenticateRequestOptions(jwt_key=ABOUT["jwt_key"]))
        assert state.is_signed_in, state.message
        assert state.payload["sid"] == ALICE["id"] and state.payload["org_role"] == "admin", state.payload


if __name__ == "__main__":
    try:
        main()
    finally:
        if PROCESS:
            PROCESS.terminate()
    print(f"  clerk-backend-api: {COUNTS['passed']} passed, {COUNTS['failed']} failed")
    sys.exit(0 if COUNTS["failed"] == 0 and COUNTS["passed"] else 1)

"""A small application: it verifies Clerk sessions, mints tokens for its report service, and listens to Clerk's
webhooks."""

import base64
import hashlib
import hmac
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from clerk_backend_api import Clerk, models
from clerk_backend_api.security import authenticate_request
from clerk_backend_api.security.types import AuthenticateRequestOptions
from clerk_backend_api.utils import BackoffStrategy, RetryConfig

PARTIES = ["https://app.example.com"]
# The SDK's default goes on trying for an hour.
RETRIES = RetryConfig("backoff", BackoffStrategy(100, 500, 1.5, 1000), False)


class App:
    """What the requests share. `settings` is what the environment holds in production."""

    def __init__(self, settings):
        self.clerk = Clerk(
            bearer_auth=settings["CLERK_SECRET_KEY"],
            server_url=settings["CLERK_API_URL"] + "/v1",
            timeout_ms=5_000,
            retry_config=RETRIES,
        )
        self.options = AuthenticateRequestOptions(jwt_key=settings["CLERK_JWT_KEY"], authorized_parties=PARTIES)
        self.signing_secret = settings["CLERK_WEBHOOK_SIGNING_SECRET"]
        self.revoked = set()

    def reports(self, request):
        """The user's token for the report service: status, headers, body."""
        state = authenticate_request(request, self.options)
        if not state.is_signed_in or state.payload["sid"] in self.revoked:
            return 401, {}, {"error": "sign in"}
        try:
            minted = self.clerk.sessions.create_token_from_template(
                session_id=state.payload["sid"], template_name="reports"
            )
        except models.ClerkErrors as error:
            if error.status_code == 404:
                return 401, {}, {"error": "sign in"}
            return 503, {}, {"error": "try again"}
        except models.SDKError as error:
            seconds = error.headers.get("retry-after")
            return 503, {"retry-after": seconds} if seconds else {}, {"error": "try again"}
        # A real application would now call the report service with this token.
        return 200, {}, {"user": state.payload["sub"], "token": minted.jwt}

    def webhook(self, headers, body):
        """One event of Clerk's: status, headers, body."""
        if not self.is_signed(headers, body):
            return 400, {}, {"error": "not signed by Clerk"}
        event = json.loads(body)
        if event["type"] in ("session.ended", "session.removed", "session.revoked"):
            self.revoked.add(event["data"]["id"])
        return 200, {}, {}

    def is_signed(self, headers, body):
        """Whether Svix signed this body for us, within the last five minutes."""
        key = base64.b64decode(self.signing_secret.removeprefix("whsec_"))
        stamp = headers.get("svix-timestamp", "")
        if not stamp.isdigit() or abs(time.time() - int(stamp)) > 300:
            return False
        signed = f"{headers.get('svix-id', '')}.{stamp}.".encode() + body
        good = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        given = headers.get("svix-signature", "").split(" ")
        return any(hmac.compare_digest(good.encode(), one.encode()) for one in given)


def serve(app_of):
    """A server on a free port of loopback; `app_of` gives the application once it is there."""

    class Handler(BaseHTTPRequestHandler):
        """Two paths."""

        def do_GET(self):  # noqa: N802
            """The reports."""
            self.answer(app_of().reports(self) if self.path == "/reports" else (404, {}, {}))

        def do_POST(self):  # noqa: N802
            """The webhooks."""
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            self.answer(app_of().webhook(self.headers, body) if self.path == "/webhooks" else (404, {}, {}))

        def answer(self, answer):
            """Sends status, headers and body."""
            status, headers, body = answer
            text = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(text))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            """Nothing is logged."""

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)

"""The application's tests: a real Clerk API on loopback, without an account and without the internet."""

import base64
import json
import os
import pathlib
import shutil
import subprocess
import threading
import time
import unittest
import urllib.error
import urllib.request

from app import App, serve


def fetch(url, method="GET", body=None, headers=None):
    """Status, headers and body of one exchange."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json", **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def claims(jwt):
    """What a token says."""
    text = jwt.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


class AppTest(unittest.TestCase):
    """The application in front of an emulator of its own."""

    @classmethod
    def setUpClass(cls):
        # The application's address first: the emulator is told where to send webhooks.
        cls.server = serve(lambda: cls.app)
        threading.Thread(target=cls.server.serve_forever, daemon=True).start()
        cls.base = f"http://127.0.0.1:{cls.server.server_port}"
        seed = str(pathlib.Path(__file__).with_name("seed.toml"))
        binary = os.environ.get("MINTGATE_BIN", "mintgate")
        if shutil.which(binary) is None:
            raise RuntimeError(f"no {binary} here: install it into the path, or let MINTGATE_BIN name it")
        command = [binary, "emulator", "--json", "--listen", "127.0.0.1:0"]
        command += ["--seed", seed, "--webhook-url", cls.base + "/webhooks"]
        cls.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        cls.clerk = json.loads(cls.process.stdout.readline())
        cls.app = App(
            {
                "CLERK_SECRET_KEY": cls.clerk["secret_key"],
                "CLERK_API_URL": cls.clerk["api_url"],
                "CLERK_JWT_KEY": cls.clerk["jwt_key"],
                "CLERK_WEBHOOK_SIGNING_SECRET": cls.clerk["webhook_secret"],
            }
        )

    @classmethod
    def tearDownClass(cls):
        cls.process.terminate()
        cls.process.wait()
        cls.process.stdout.close()
        cls.server.shutdown()
        cls.server.server_close()

    def tearDown(self):
        self.emulator("DELETE", "/faults")

    def emulator(self, method, path, body=None):
        """A helper of the emulator's."""
        status, _, text = fetch(self.clerk["api_url"] + "/_emulator" + path, method, body)
        self.assertEqual(status, 200, text)
        return text

    def token(self, session):
        """A session token, as the browser would send it."""
        return self.emulator("GET", f"/token?session={session}")

    def reports(self, token=None):
        """The application's answer to a user."""
        return fetch(self.base + "/reports", headers={"Authorization": f"Bearer {token}"} if token else None)

    def test_a_user_gets_a_token_with_the_claims_of_the_template(self):
        status, _, text = self.reports(self.token("sess_ann"))
        self.assertEqual(status, 200, text)
        minted = claims(json.loads(text)["token"])
        self.assertEqual((minted["sub"], minted["role"], minted["org"]), ("user_ann", "editor", "org_acme"))
        self.assertEqual(minted["exp"] - minted["iat"], 300)

    def test_nobody_gets_nothing(self):
        self.assertEqual(self.reports()[0], 401)
        self.assertEqual(self.reports("eyJhbGciOiJub25lIn0.e30.")[0], 401)

    def test_when_clerk_throttles_the_user_is_told_when_to_come_back(self):
        self.emulator("POST", "/faults", {"endpoint": "mint", "times": 1, "status": 429, "retry_after": 3})
        status, headers, _ = self.reports(self.token("sess_ann"))
        self.assertEqual((status, headers["retry-after"]), (503, "3"))
        self.assertEqual(self.reports(self.token("sess_ann"))[0], 200)

    def test_one_failure_of_clerks_is_retried_and_an_outage_signs_nobody_out(self):
        self.emulator("POST", "/faults", {"endpoint": "mint", "times": 1, "status": 503})
        self.assertEqual(self.reports(self.token("sess_ann"))[0], 200)
        self.emulator("POST", "/faults", {"endpoint": "mint", "status": 503})
        self.assertEqual(self.reports(self.token("sess_ann"))[0], 503)

    def test_a_revoked_session_is_refused_although_its_token_is_still_good(self):
        session = json.loads(self.emulator("POST", "/sessions", {"user_id": "user_ann"}))["id"]
        held = self.token(session)
        self.assertEqual(self.reports(held)[0], 200)
        key = {"Authorization": f"Bearer {self.clerk['secret_key']}"}
        fetch(f"{self.clerk['api_url']}/v1/sessions/{session}/revoke", "POST", headers=key)
        for _ in range(500):
            if session in self.app.revoked:
                break
            time.sleep(0.02)
        self.assertIn(session, self.app.revoked)
        self.assertEqual(self.reports(held)[0], 401)

    def test_an_event_that_clerk_did_not_sign_is_refused(self):
        headers = {"svix-id": "msg_1", "svix-timestamp": str(int(time.time())), "svix-signature": "v1,AAAA"}
        event = {"type": "session.revoked", "data": {"id": "sess_ann"}}
        self.assertEqual(fetch(self.base + "/webhooks", "POST", event, headers)[0], 400)
        self.assertNotIn("sess_ann", self.app.revoked)


if __name__ == "__main__":
    unittest.main()

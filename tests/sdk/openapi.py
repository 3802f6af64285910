"""The emulator's live answers and events against Clerk's own OpenAPI descriptions, where they are at hand.

MINTGATE_CLERK_OPENAPI names the description of the Backend API (bapi/*.yml), MINTGATE_CLERK_WEBHOOKS that of the events
(webhooks/*.yml). Neither is part of this repository; without them this says so and passes. The emulator is MINTGATE_BIN.
"""

import http.server
import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request

FAILED, CHECKED, UNLISTED = [], [0], set()


def load(name):
    """A description, with `nullable` turned into JSON Schema; None when the variable names none."""
    path = os.environ.get(name)
    if not path:
        print(f"  skipped: {name} names no description")
        return None
    import yaml  # pylint: disable=import-outside-toplevel

    with open(path, encoding="utf-8") as file:
        return schema(yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def schema(node):
    """OpenAPI 3.0 says `nullable: true` where JSON Schema lists a type."""
    if isinstance(node, list):
        return [schema(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {name: schema(value) for name, value in node.items()}
    if made.pop("nullable", None) is True:
        return {"anyOf": [{"type": "null"}, made]}
    return made


def followed(document, node):
    """What a reference names."""
    while "$ref" in node:
        target = node["$ref"]
        node = document
        for step in target.removeprefix("#/").split("/"):
            node = node[step.replace("~1", "/").replace("~0", "~")]
    return node


def errors(document, described, body):
    """What is wrong with a body, by place and rule."""
    from jsonschema import Draft202012Validator  # pylint: disable=import-outside-toplevel

    whole = {"allOf": [described], "components": document["components"]}
    found = Draft202012Validator(whole).iter_errors(body)
    return {("/".join(map(str, error.absolute_path)), error.validator): error.message[:200] for error in found}


def judge(document, content, body, what):
    """One body against its schema. What the description's own example breaks too is the description's mistake."""
    CHECKED[0] += 1
    excused = {}
    for example in content.get("examples", {}).values():
        excused |= errors(document, content["schema"], followed(document, example)["value"])
    for place, message in errors(document, content["schema"], body).items():
        if place in excused:
            UNLISTED.add(f"{what}: its own example breaks this rule too: {place[0]}: {message}")
        else:
            FAILED.append(f"{what}: {place[0] or 'the body'}: {message}")


class Api:
    """The emulator's API, each answer of which is judged."""

    def __init__(self, document, about):
        self.document, self.about = document, about

    def call(self, method, template, body=None, key=None, expect=200, **parts):
        """One call; `template` is the path as the description writes it."""
        query = parts.pop("query", "")
        path = template.format(**parts)
        headers = {"Authorization": f"Bearer {key or self.about['secret_key']}", "content-type": "application/json"}
        data = json.dumps(body).encode() if body is not None else None
        url = f"{self.about['api_url']}/v1{path}{query}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method)) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        what = f"{method} {template} {status}"
        if status != expect:
            FAILED.append(f"{what}: {expect} was expected: {text[:200]}")
        described = self.document["paths"][template][method.lower()]["responses"].get(str(status))
        if described is None:
            # Not in the description of this call; then the shape is that of every error.
            UNLISTED.add(f"{what} is not in the description of this call")
            described = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/ClerkErrors"}}}}
        described = followed(self.document, described)
        value = json.loads(text)
        judge(self.document, described["content"]["application/json"], value, what)
        return value


def api(document, about):
    """Every call of the contract's first section, in each way that it can go."""
    call = Api(document, about).call
    session, user = about["sessions"][0]["id"], about["sessions"][0]["user_id"]
    call("GET", "/jwks")
    for query in ("", f"?user_id={user}", "?client_id=none", "?status=active&limit=1&offset=1"):
        call("GET", "/sessions", query=query)
    call("GET", "/sessions", query="?limit=501", expect=422)
    call("GET", "/sessions", query="?__clerk_api_version=1", expect=400)
    made = call("POST", "/sessions", {"user_id": user, "active_organization_id": about["sessions"][0]["organization_id"]})
    call("POST", "/sessions", {"user_id": "user_none"}, expect=404)
    call("POST", "/sessions", {}, expect=422)
    call("GET", "/sessions/{session_id}", session_id=session)
    call("GET", "/sessions/{session_id}", session_id="none", expect=404)
    call("POST", "/sessions/{session_id}/refresh", {}, session_id=session, expect=400)
    refresh = {"expired_token": "a", "refresh_token": "b", "request_origin": "c"}
    call("POST", "/sessions/{session_id}/refresh", refresh, session_id=session, expect=401)
    for path in ("/sessions/{session_id}/tokens", "/sessions/{session_id}/tokens/{template_name}"):
        call("POST", path, session_id=session, template_name="plain")
        call("POST", path, {"expires_in_seconds": 300}, session_id=session, template_name="plain")
        call("POST", path, {"expires_in_seconds": 29}, session_id=session, template_name="plain", expect=422)
        call("POST", path, session_id="none", template_name="plain", expect=404)
        call("POST", path, session_id=session, template_name="plain", key="sk_test_wrong", expect=401)
    call("POST", "/sessions/{session_id}/revoke", session_id=made["id"])
    call("POST", "/sessions/{session_id}/revoke", session_id="none", expect=404)
    call("GET", "/jwt_templates")
    template = {"name": "described", "claims": {"id": "{{user.id}}"}, "lifetime": 90, "allowed_clock_skew": 0}
    made = call("POST", "/jwt_templates", template)["id"]
    call("POST", "/jwt_templates", template, expect=422)
    call("POST", "/jwt_templates", {"name": "x", "claims": {"sub": "me"}}, expect=400)
    own = {**template, "custom_signing_key": True, "signing_algorithm": "HS256", "signing_key": "secret"}
    call("PATCH", "/jwt_templates/{template_id}", own, template_id=made)
    call("PATCH", "/jwt_templates/{template_id}", {**own, "lifetime": 29}, template_id=made, expect=422)
    call("GET", "/jwt_templates/{template_id}", template_id=made)
    call("DELETE", "/jwt_templates/{template_id}", template_id=made)
    for method in ("GET", "DELETE"):
        call(method, "/jwt_templates/{template_id}", template_id=made, expect=404)


def helper(about, method, path, body=None):
    """A helper of the emulator's."""
    data = json.dumps(body).encode() if body is not None else None
    url = f"{about['api_url']}/_emulator{path}"
    request = urllib.request.Request(url, data, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


def events(document, about, got):
    """Every event that the emulator sends."""
    user = about["users"][0]
    session = helper(about, "POST", "/sessions", {"user_id": user})["id"]
    for status in ("revoked", "pending", "ended", "removed"):
        helper(about, "PATCH", f"/sessions/{session}", {"status": status})
    helper(about, "PATCH", f"/users/{user}", {"first_name": "X"})
    place = f"/organizations/org_emulator_acme/memberships/{user}"
    helper(about, "DELETE", place)
    helper(about, "PUT", place, {})
    helper(about, "PUT", place, {"role": "org:admin"})
    helper(about, "DELETE", f"/users/{user}")
    # A session that the calls of the API began and revoked may have been told before.
    while len({json.loads(body)["type"] for body in got.bodies}) < 10:
        if not got.acquire(timeout=30):
            FAILED.append("an event did not come")
            return
    described = document.get("webhooks") or document.get("x-webhooks") or document["paths"]
    for body in got.bodies:
        event = json.loads(body)
        operation = described[event["type"]]["post"]
        judge(document, operation["requestBody"]["content"]["application/json"], event, event["type"])


class Taken(threading.Semaphore):
    """Counts the events that came."""

    def __init__(self):
        super().__init__(0)
        self.bodies = []


def receiver(got):
    """An application that takes every event."""

    class Handler(http.server.BaseHTTPRequestHandler):
        """One path for all."""

        def do_POST(self):  # noqa: N802
            """Takes one."""
            got.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(204)
            self.end_headers()
            got.release()

        def log_message(self, *_):
            """Nothing is logged."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def main():
    """Both descriptions, as far as they are there."""
    described, hooks = load("MINTGATE_CLERK_OPENAPI"), load("MINTGATE_CLERK_WEBHOOKS")
    if described is None and hooks is None:
        return 0
    got = Taken()
    server = receiver(got)
    command = [os.environ["MINTGATE_BIN"], "emulator", "--json", "--listen", "127.0.0.1:0", "--rate-limit", "off"]
    command += ["--webhook-url", f"http://127.0.0.1:{server.server_port}/"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            about = json.loads(process.stdout.readline())
            if described is not None:
                api(described, about)
            if hooks is not None:
                events(hooks, about, got)
        finally:
            process.terminate()
    for what in sorted(UNLISTED):
        print(f"  told apart: {what}")
    for problem in FAILED:
        print(f"  FAILED {problem}", file=sys.stderr)
    print(f"  Clerk's descriptions: {CHECKED[0]} answers and events judged, {len(FAILED)} problems")
    return 1 if FAILED or not CHECKED[0] else 0


if __name__ == "__main__":
    sys.exit(main())

"""Sees that a peer does the work that it claims to do, by what the upstream received."""

import base64
import json
import subprocess

from peers import LARGE, STATIC


def ask(peer, path, credential=None, body=None):
    """The status and the text of an answer; curl speaks each of the protocols."""
    argv = ["curl", "-s", "-k", "-m", "10", "-o", "-", "-w", "\n%{http_code}", peer.url + path]
    argv += ["--http2-prior-knowledge"] if peer.scheme == "h2c" else []
    argv += ["-H", f"authorization: Bearer {credential}"] if credential else []
    argv += ["--data-binary", "@-"] if body else []
    said = subprocess.run(argv, input=body, capture_output=True).stdout.decode()
    text, _, status = said.rpartition("\n")
    return int(status), text


def claims(token):
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def forged(credential):
    """Another session's claims under this signature would do, too; a changed signature is the smaller change."""
    head, _, signature = credential.rpartition(".")
    return f"{head}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


def check(peer, one, other):
    """What is wrong with it, or nothing. `one` and `other` are credentials of two sessions."""
    wrong = []
    for credential in (one, other, one):
        status, received = ask(peer, "/echo", credential)
        token = received.removeprefix("Bearer ")
        if status != 200 or not received.startswith("Bearer "):
            wrong.append(f"a good credential got {status} {received[:60]!r}")
        elif token == credential:
            wrong.append("the upstream received the caller's credential")
        elif peer.looks_up and claims(token)["sid"] != claims(credential)["sid"]:
            wrong.append("the upstream received another session's token")
        elif not peer.looks_up and token != STATIC:
            wrong.append(f"the upstream received {received[:60]!r}")
    if peer.verifies:
        for what, credential in (("a forged signature", forged(one)), ("no credential", None)):
            status, _ = ask(peer, "/echo", credential)
            if status != 401:
                wrong.append(f"{what} got {status}")
    status, text = ask(peer, "/resource?page=1", one)
    if status != 200 or len(text) != 100:
        wrong.append(f"the ordinary answer is {status} with {len(text)} bytes")
    return wrong


def check_bodies(peer, one):
    """Bodies of the size that is measured arrive whole, in both directions."""
    status, text = ask(peer, "/large", one)
    wrong = [] if (status, len(text)) == (200, LARGE) else [f"a large answer is {status} with {len(text)} bytes"]
    status, text = ask(peer, "/sink", one, b"b" * LARGE)
    return wrong + ([] if (status, text) == (200, str(LARGE)) else [f"of a large body arrived {status} {text[:60]!r}"])

"""Checks that count, and what the tests of the Python SDK read of tokens and refusals."""

import base64
import json
import sys

COUNTS = {"passed": 0, "failed": 0}


def check(run):
    """Runs one check, named by its docstring; an exception is a failure."""
    try:
        run()
        COUNTS["passed"] += 1
    except Exception as error:  # noqa: BLE001 a failed check must not hide the others
        COUNTS["failed"] += 1
        print(f"  FAILED {run.__doc__}\n    {type(error).__name__}: {error}", file=sys.stderr)
    return run


def part(jwt, index):
    """Header (0) or claims (1) of a token."""
    text = jwt.split(".")[index]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def refused(expected, call):
    """The call must fail with this class of error."""
    try:
        call()
    except expected as error:
        return error
    raise AssertionError("the call went through")

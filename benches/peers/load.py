"""The three loads: wrk (rotating credentials), h2load (HTTP/2), oha (a constant rate). Each returns what it saw."""

import json
import os
import re
import subprocess

from places import CONF, LOAD_CPU, oha


def run(argv, env=None):
    done = subprocess.run(argv, env={**os.environ, **(env or {})}, capture_output=True, text=True,
                          preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CPU}))
    if done.returncode != 0:
        raise SystemExit(f"{argv[0]} failed: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    return done.stdout


def first(credentials):
    with open(credentials) as file:
        return file.readline().strip()


def wrk(url, seconds, credentials, limit, connections=64, start=0, target="/resource?page=1", body=0, once=False):
    """Closed loop: every connection sends its next request when it has its answer."""
    said = run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", f"{CONF}/wrk.lua", url],
               {"CREDENTIALS": credentials, "FROM": str(start), "LIMIT": str(limit), "TARGET": target, "BODY": str(body),
                "ONCE": "1" if once else "0"})
    found = re.search(r"^RESULT (.*)$", said, re.M)
    if not found:
        raise SystemExit(f"wrk said no result: {said[-1000:]}")
    return json.loads(found.group(1))


def h2load(url, seconds, credentials, connections=8, streams=8):
    """Closed loop over HTTP/2 in clear text. It has one set of headers, so one credential."""
    said = run(["h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}",
                "-H", f"authorization: Bearer {first(credentials)}", f"{url}/resource?page=1"])
    took = float(re.search(r"finished in ([\d.]+)s", said).group(1))
    answered = sum(map(int, re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", said).groups()))
    good = int(re.search(r"status codes: (\d+) 2xx", said).group(1))
    lost = int(re.search(r"(\d+) failed", said).group(1)) + int(re.search(r"(\d+) errored", said).group(1))
    return {"requests": answered, "seconds": took, "bad": answered - good + lost}


def constant(url, seconds, credentials, rate, connections=64):
    """Open loop: times count from when a request was due, so a stall is seen by all that wait behind it."""
    said = json.loads(run([oha(), "--no-tui", "--output-format", "json", "-z", f"{seconds}s", "-c", str(connections),
                           "-q", str(rate), "--latency-correction", "-H", f"authorization: Bearer {first(credentials)}",
                           f"{url}/resource?page=1"]))
    statuses, at = said["statusCodeDistribution"], said["latencyPercentiles"]
    answered = sum(statuses.values())
    # Requests that were under way at the end are no failures.
    errors = sum(n for what, n in said["errorDistribution"].items() if "deadline" not in what)
    return {"requests": answered, "seconds": said["summary"]["total"], "bad": answered - statuses.get("200", 0) + errors,
            "p50_us": round(at["p50"] * 1e6), "p99_us": round(at["p99"] * 1e6)}

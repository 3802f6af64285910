"""Measures the variants of a row in turn, A B C A B C, and repeats what others on the machine have disturbed."""

import socket
import threading
import time

from check import check, check_bodies
from load import first
from material_sets import FEW, file
from peers import PEERS, upstream
from places import ADMIN, PEER, PEER_CPU
from process import Process, busy, own

# The share of one CPU that others may take before a measurement counts as disturbed.
FOREIGN = 0.06
TRIES = 3


class Patience:
    """What a row may spend on waiting for a quiet machine and on measuring again, in seconds."""

    def __init__(self, seconds):
        self.left = seconds

    def quiet(self):
        """Waits until the machine has next to nothing to do, but not for ever."""
        since = last = time.monotonic()
        while last - since < min(self.left, 15):
            before = busy()
            time.sleep(0.3)
            now = time.monotonic()
            if (busy() - before) / (now - last) < 0.05:
                return
            last = now
        self.left -= last - since


class Watched:
    """Looks at a process's memory twice a second, so that the last look is under the last of the load."""

    def __init__(self, process):
        self.process, self.resident, self.over = process, 0, threading.Event()
        self.thread = threading.Thread(target=self.look)

    def look(self):
        while not self.over.wait(0.5):
            self.resident = self.process.resident()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def once(process, behind, drive, url, seconds):
    """One measurement: what the load saw, and what the peer's processes spent on it."""
    def now():
        return time.monotonic(), busy(), own() + behind.cpu(), process.cpu()

    before = now()
    with Watched(process) as watched:
        seen = drive(url, seconds)
    wall, total, ours, peer = (after - start for after, start in zip(now(), before))
    others = total - ours - peer
    seen["foreign"] = round(max(0.0, others / wall), 3)
    # What the load and the upstream spent on their CPU: while it is less than the peer's, the peer is the limit.
    seen["load_us"] = ours / max(seen["requests"], 1) * 1e6
    seen["cpu_us"] = peer / max(seen["requests"], 1) * 1e6
    seen["rss_mb"] = watched.resident / 2**20
    # Where the credentials ran out, wrk counts the rest of the time as if it had gone on.
    if not seen.get("ran_out"):
        seen["rps"] = seen["requests"] / seen["seconds"]
        seen["util"] = peer / seen["seconds"]
    return seen


def variant(one, behind, seconds, patience):
    """The first undisturbed measurement, else the last. Each has a new process: none knows another one's credentials."""
    url = PEERS[one.peer].url
    for _ in range(TRIES):
        since = time.monotonic()
        with PEERS[one.peer].start() as process:
            one.warm(url)
            patience.quiet()
            seen = once(process, behind, one.drive, url, seconds)
        if (seen["foreign"] <= FOREIGN and seen["bad"] == 0) or patience.left <= 0:
            break
        patience.left -= time.monotonic() - since
    return seen


def checks(row):
    """Each peer of the row, before anything is measured; ends the run where one does not do its work."""
    with open(file(FEW)) as credentials:
        one, other = (next(credentials).strip() for _ in range(2))
    for name in dict.fromkeys(each.peer for each in row.variants):
        peer = PEERS[name]
        with peer.start():
            wrong = check(peer, one, other) + (check_bodies(peer, one) if row.bodies else [])
        if wrong:
            raise SystemExit(f"{name} does not do its work: " + "; ".join(wrong))
        does = "good, forged and other sessions" if peer.verifies else "header replaced"
        print(f"  {name}: {does}, as it should be", flush=True)


def measure(row, rounds, seconds, patience):
    """The measurements of a row: a list of rounds for each variant."""
    patience = Patience(patience)
    found = {one.key: [] for one in row.variants}
    with upstream() as behind:
        checks(row)
        for number in range(rounds):
            for one in row.variants:
                seen = variant(one, behind, seconds, patience)
                found[one.key].append(seen)
                print(f"  {number + 1}/{rounds} {one.key:18} {seen['cpu_us']:8.2f} us/request {seen.get('rps', 0):8.0f}/s "
                      f"foreign {seen['foreign']:.2f}" + (f" BAD {seen['bad']}" if seen["bad"] else ""), flush=True)
    return found


def ready(rounds):
    """Milliseconds from the start of the process to the first 200 of /readyz."""
    found = []
    argv, env = PEERS["mintgate"].command()
    with upstream():
        for number in range(rounds):
            with Process("peer", argv, PEER_CPU, [PEER, ADMIN], env, wait=False) as process:
                while not says_ready():
                    if process.child.poll() is not None or time.monotonic() - process.began > 15:
                        raise SystemExit(f"mintgate did not get ready:\n{process.tail()}")
                    time.sleep(0.0005)
                took = (time.monotonic() - process.began) * 1e3
            found.append({"ready_ms": took, "bad": 0, "foreign": 0.0})
            print(f"  {number + 1}/{rounds} {took:.1f} ms", flush=True)
    return {"mintgate": found}


def says_ready():
    try:
        with socket.create_connection(("127.0.0.1", ADMIN), 1) as asked:
            asked.sendall(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            return asked.recv(64).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False

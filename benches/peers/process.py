"""A process that was started here: pinned to a CPU, counted with its descendants, ended by its id."""

import mmap
import os
import signal
import socket
import struct
import subprocess
import time

from places import RUN

TICKS, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


def refuse_taken(port):
    """A listener that was there before would share the port, or be measured in the peer's place."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise SystemExit(f"port {port} is taken; end what listens there and try again") from None


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
        return True
    except OSError:
        return False


class Process:
    """Runs from construction until `end`, which a `with` calls."""

    def __init__(self, label, argv, cpu, ports, env=None, wait=True):
        for port in ports:
            refuse_taken(port)
        self.label, self.log = label, os.path.join(RUN, f"{label}.log")
        stamp = mmap.mmap(-1, 8)

        def before_exec():
            os.sched_setaffinity(0, {cpu})
            stamp[:] = struct.pack("d", time.monotonic())

        with open(self.log, "w") as log:
            # A session of its own makes a group that nobody else is in.
            self.child = subprocess.Popen(argv, env={**os.environ, **(env or {})}, cwd=RUN, stdin=subprocess.DEVNULL,
                                          stdout=log, stderr=log, start_new_session=True, preexec_fn=before_exec)
        # When the child became the program, by the monotonic clock; the fork before it is Python's.
        self.began = struct.unpack("d", stamp[:])[0]
        if wait:
            self.wait_for(ports)

    def wait_for(self, ports):
        until = time.monotonic() + 15
        try:
            while not all(map(answers, ports)):
                if self.child.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"{self.label} did not start; the end of its log:\n{self.tail()}")
                time.sleep(0.02)
        except BaseException:
            self.end()
            raise

    def tail(self):
        with open(self.log, errors="replace") as log:
            return log.read()[-2000:]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        for number, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 10)):
            try:
                os.killpg(self.child.pid, number)
            except ProcessLookupError:
                pass
            until = time.monotonic() + patience
            while self.members() and time.monotonic() < until:
                self.child.poll()
                time.sleep(0.01)
            if not self.members():
                break
        self.child.wait()

    def members(self):
        """What /proc/PID/stat says about each process of the group, from the state on."""
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{entry}/stat") as stat:
                    fields = stat.read().rpartition(")")[2].split()
            except OSError:
                continue
            # A zombie that is nobody's child here is ended, too.
            if int(fields[2]) == self.child.pid and (fields[0] != "Z" or int(entry) == self.child.pid):
                found.append(fields)
        return found

    def cpu(self):
        """User and system time so far, in seconds."""
        return sum(int(fields[11]) + int(fields[12]) for fields in self.members()) / TICKS

    def resident(self):
        """Resident memory in bytes."""
        return sum(int(fields[21]) for fields in self.members()) * PAGE


def busy():
    """What all CPUs have worked since the machine started, in seconds; what a hypervisor took is not in it."""
    with open("/proc/stat") as stat:
        user, nice, system, _, _, irq, softirq = map(int, stat.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / TICKS


def own():
    """What this process and the children that it has waited for have worked, in seconds."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system

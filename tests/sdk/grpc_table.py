"""gRPC's own interoperability cases, and what breaks proxies besides: each is run directly and through the gateway.

Client and server are grpcio's. The environment: EMULATOR, the line of `mintgate emulator --json`, and MINTGATE_BIN.
Prints a table of both runs and fails on any difference, or where both are wrong alike. What only the gateway can answer
(its own errors) follows. Names of cases on the command line: only those.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent import futures

import grpc
import grpc_service as wire
from grpc_service import SERVICE, Service

EMULATOR = json.loads(os.environ["EMULATOR"])
SESSION = EMULATOR["sessions"][0]["id"]
PATIENCE = 60
# What the gateway says of itself and of the caller.
OURS = {"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id"}
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"


class Session:
    """A session token that is always fresh: it lives for a minute, the table takes longer."""

    def __init__(self):
        self.used, self.token, self.since = set(), None, 0

    def fresh(self):
        if not self.token or time.monotonic() - self.since > 20:
            url = f"{EMULATOR['api_url']}/_emulator/token?session={SESSION}"
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                self.token, self.since = answer.read().decode(), time.monotonic()
            self.used.add(f"Bearer {self.token}")
        return self.token


class Gateway:
    def __init__(self, ports, directory):
        config = pathlib.Path(directory, "mintgate.toml")
        upstreams = "".join(
            f'[upstreams.{name}]\nurl = "http://127.0.0.1:{port}"\nhttp2 = true\nresponse_timeout = "{limit}"\n'
            for name, port, limit in ports
        )
        routes = "".join(
            f'[[routes]]\nname = "{name}"\nmatch = {{ host = "{name}.test" }}\nupstream = "{name}"\n'
            'inject = [{ header = "authorization", prefix = "Bearer ", template = "plain" }]\n'
            for name, _, _ in ports
        )
        config.write_text(f"""
[clerk]
secret_key = {{ env = "CLERK_SECRET_KEY" }}
publishable_key = "{EMULATOR['publishable_key']}"
api_url = "{EMULATOR['api_url']}"
[server]
listen = ["127.0.0.1:0"]
[admin]
listen = "127.0.0.1:0"
{upstreams}{routes}
[[routes]]
name = "gets"
match = {{ host = "main.test", path = "/gets.Only", methods = ["GET"] }}
upstream = "main"
session = []
[[routes]]
name = "no-template"
match = {{ host = "main.test", path = "/no.Template" }}
upstream = "main"
inject = [{{ header = "authorization", prefix = "Bearer ", template = "there_is_none" }}]
""")
        environment = os.environ | {"CLERK_SECRET_KEY": EMULATOR["secret_key"]}
        arguments = [os.environ["MINTGATE_BIN"], "run", "--config", str(config)]
        self.process = subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True)
        addresses, said = {}, []
        for line in self.process.stderr:
            said.append(line)
            # What the configuration is warned about is text.
            line = json.loads(line) if line.startswith("{") else {}
            if "address" in line:
                addresses["admin" if line["message"].startswith("admin") else "data"] = line["address"]
            if len(addresses) == 2:
                break
        else:
            raise SystemExit(f"the gateway ended: {self.process.wait()}\n{''.join(said)}")
        # Nobody reads on otherwise, and the pipe would fill.
        threading.Thread(target=lambda: [None for _ in self.process.stderr], daemon=True).start()
        self.address = addresses["data"]
        end = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"http://{addresses['admin']}/readyz", timeout=PATIENCE).close()
                return
            except OSError:
                assert time.monotonic() < end, "the gateway is never ready"
                time.sleep(0.05)

    def memory(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    def stop(self):
        self.process.terminate()
        self.process.wait(PATIENCE)


class Alone:
    """A server in a process of its own, which can die."""

    def __init__(self, port=0, **options):
        arguments = [sys.executable, wire.__file__, *(f"{name}={value}" for name, value in options.items())]
        arguments += [f"port={port}"] if port else []
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        self.options, self.port = options, int(self.process.stdout.readline())

    def dies(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def again(self):
        self.__init__(self.port, **self.options)


class Run:
    """One way to the servers: directly, or through the gateway."""

    def __init__(self, name, address, service, session, servers, gateway):
        self.name, self.address, self.service, self.servers, self.gateway = name, address, service, servers, gateway
        self.session, self.count, self.channels = session, 0, {}

    def channel(self, server="main", fresh=False):
        if fresh or server not in self.channels:
            authority = ("grpc.default_authority", f"{server}.test")
            # A channel of its own, not another handle on a connection that is open already.
            options = [authority, ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
            options += [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200)]
            channel = grpc.insecure_channel(self.address(server), options=options)
            if fresh:
                return channel
            self.channels[server] = channel
        return self.channels[server]

    def call(self, kind, method, request=b"", *, more=(), name="", server="main", channel=None, timeout=PATIENCE, **rest):
        """Begins a call; its `x-call` is what the server knows it by."""
        self.count += 1
        own = f"{name or 'call'}-{self.name}-{self.count}"
        channel = channel or self.channel(server)
        stub = getattr(channel, kind)(method if method.startswith("/") else f"/{SERVICE}/{method}")
        metadata = (("authorization", f"Bearer {self.session.fresh()}"), ("x-call", own), *more)
        if kind.endswith("_unary"):
            begun = stub.future(request, metadata=metadata, timeout=timeout, **rest)
        else:
            begun = stub(request, metadata=metadata, timeout=timeout, **rest)
        return own, begun

    def unary(self, method="EmptyCall", request=b"", **rest):
        return self.call("unary_unary", method, request, **rest)[1].result()


def outcome(begun):
    """How a call ended."""
    return begun.code().name, begun.details()


# --- gRPC's interoperability cases ---


def empty_unary(run):
    return run.unary() == b""


def large_unary(run):
    return wire.body_size(run.unary("UnaryCall", wire.simple_request(314159, 271828)), 1)


def several_megabytes(run):
    return wire.body_size(run.unary("UnaryCall", wire.simple_request(3_900_000, 3_900_000)), 1)


def compressed_unary(run):
    request = wire.simple_request(314159, 271828)
    return wire.body_size(run.unary("UnaryCall", request, compression=grpc.Compression.Gzip), 1)


def client_streaming(run):
    requests = (wire.input_request(size) for size in (27182, 8, 1828, 45904))
    return wire.fields(run.call("stream_unary", "StreamingInputCall", requests)[1].result())[1]


def server_streaming(run):
    request = wire.output_request((31415, 9, 2653, 58979))
    return [wire.body_size(answer, 1) for answer in run.call("unary_stream", "StreamingOutputCall", request)[1]]


def ping_pong(run):
    answered, sizes = threading.Semaphore(0), []

    def asks():
        for up, down in ((27182, 31415), (8, 9), (1828, 2653), (45904, 58979)) * 50:
            yield wire.output_request((down,), up)
            # The next message waits for the answer to this one.
            assert answered.acquire(timeout=PATIENCE), "an answer was held back"

    _, begun = run.call("stream_stream", "FullDuplexCall", asks())
    for answer in begun:
        sizes.append(wire.body_size(answer, 1))
        answered.release()
    return len(sizes), sum(sizes), outcome(begun)


def empty_stream(run):
    _, begun = run.call("stream_stream", "FullDuplexCall", iter(()))
    return list(begun), outcome(begun)


def half_close(run):
    requests = (wire.output_request((size, size)) for size in (31415, 9, 2653))
    _, begun = run.call("stream_stream", "HalfDuplexCall", requests)
    return [wire.body_size(answer, 1) for answer in begun], outcome(begun)


def timeout_on_sleeping_server(run):
    call, begun = run.call(
        "stream_stream", "FullDuplexCall", iter((wire.output_request((), 27182),)), name="sleeps", timeout=1
    )
    answers = 0
    try:
        answers = len(list(begun))
    except grpc.RpcError:
        pass
    return answers, begun.code().name, run.service.ended[call].wait(PATIENCE)


def deadline_reaches_the_server(run):
    call, begun = run.call("unary_unary", "EmptyCall", timeout=40)
    begun.result()
    return 30 < run.service.time[call] < 41


def no_deadline_reaches_the_server(run):
    call, begun = run.call("unary_unary", "EmptyCall", timeout=None)
    begun.result()
    left = run.service.time[call]
    return left is None or left > 1e6


def cancel_after_begin(run):
    hold = threading.Event()

    def asks():
        hold.wait(PATIENCE)
        return
        yield

    call, begun = run.call("stream_unary", "StreamingInputCall", asks())
    end = time.monotonic() + PATIENCE
    while call not in run.service.metadata and time.monotonic() < end:
        time.sleep(0.01)
    begun.cancel()
    ended = run.service.ended[call].wait(PATIENCE)
    hold.set()
    return begun.code().name, ended


def cancel_after_first_response(run):
    hold = threading.Event()

    def asks():
        yield wire.output_request((31415,), 27182)
        hold.wait(PATIENCE)

    call, begun = run.call("stream_stream", "FullDuplexCall", asks())
    first = wire.body_size(next(begun), 1)
    begun.cancel()
    ended = run.service.ended[call].wait(PATIENCE)
    hold.set()
    return first, begun.code().name, ended


METADATA = ((wire.ECHO_INITIAL, "test_initial_metadata_value"), (wire.ECHO_TRAILING, bytes(range(256))))


def custom_metadata(run):
    _, unary = run.call("unary_unary", "UnaryCall", wire.simple_request(314159, 271828), more=METADATA)
    unary.result()
    requests = iter((wire.output_request((314159,), 271828),))
    _, stream = run.call("stream_stream", "FullDuplexCall", requests, more=METADATA)
    list(stream)
    return [
        (
            [value for name, value in call.initial_metadata() if name == wire.ECHO_INITIAL],
            [value == bytes(range(256)) for name, value in call.trailing_metadata() if name == wire.ECHO_TRAILING],
        )
        for call in (unary, stream)
    ]


def metadata_as_the_server_sees_it(run):
    """Names and values, each name's in their order; what the gateway adds and the token are looked at apart."""
    more = (("x-one", "1"), ("x-two", "a, b"), ("x-two", "c"), ("x-empty", ""), ("x-b-bin", b"\x00\xff"))
    call, begun = run.call("unary_unary", "EmptyCall", more=more)
    begun.result()
    names = OURS | {"authorization", "x-call"}
    return sorted((pair for pair in run.service.metadata[call] if pair[0] not in names), key=lambda pair: pair[0])


def large_metadata(run):
    # One line of 6 KiB each way, far from the 8 KiB at which grpcio begins to refuse.
    call, begun = run.call("unary_unary", "EmptyCall", more=(("x-big", "b" * 6000),))
    begun.result()
    return [len(value) for name, value in begun.trailing_metadata() if name == "x-big"]


def status_code_and_message(run):
    status, outcomes = wire.echo_status(2, "test status message"), []
    _, begun = run.call("unary_unary", "UnaryCall", wire.simple_request(0, 0, status))
    begun.exception()
    outcomes.append(outcome(begun))
    _, begun = run.call("stream_stream", "FullDuplexCall", iter((wire.output_request((), 0, 0, status),)))
    try:
        list(begun)
    except grpc.RpcError:
        outcomes.append(outcome(begun))
    return outcomes


def every_status_code(run):
    outcomes = []
    for code in range(1, 17):
        request = wire.simple_request(0, 0, wire.echo_status(code, f"code {code}"))
        _, begun = run.call("unary_unary", "UnaryCall", request)
        begun.exception()
        outcomes.append(outcome(begun))
    return outcomes


def special_status_message(run):
    _, begun = run.call("unary_unary", "UnaryCall", wire.simple_request(0, 0, wire.echo_status(2, SPECIAL)))
    begun.exception()
    return outcome(begun), outcome(begun)[1] == SPECIAL


def status_after_answers(run):
    status = wire.echo_status(9, "enough")
    _, begun = run.call("unary_stream", "StreamingOutputCall", wire.output_request((10, 20), status=status))
    sizes = []
    try:
        for answer in begun:
            sizes.append(wire.body_size(answer, 1))
    except grpc.RpcError:
        pass
    return sizes, outcome(begun)


def unimplemented_method(run):
    _, begun = run.call("unary_unary", "UnimplementedCall")
    begun.exception()
    return begun.code().name


def unimplemented_service(run):
    _, begun = run.call("unary_unary", "/grpc.testing.UnimplementedService/UnimplementedCall")
    begun.exception()
    return begun.code().name


# --- what breaks proxies besides ---


def hundred_streams_at_once(run):
    """All of them open at the same time, and each gets its own answers."""
    gate = threading.Barrier(100)

    def one(number):
        def asks():
            yield wire.output_request((number,))
            # Nobody ends before everybody has begun.
            gate.wait(PATIENCE)
            yield wire.output_request((number + 1,))

        _, begun = run.call("stream_stream", "FullDuplexCall", asks())
        return [wire.body_size(answer, 1) for answer in begun] == [number, number + 1]

    with futures.ThreadPoolExecutor(100) as threads:
        return sum(threads.map(one, range(1, 101)))


def asked_again(run, size, server):
    """The body's size of a call that was not begun at first: a refused one (`UNAVAILABLE`) is asked again."""
    for left in range(9, -1, -1):
        try:
            return wire.body_size(run.unary("UnaryCall", wire.simple_request(size, 10), server=server), 1)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or not left:
                raise
            time.sleep(0.01)


def a_server_that_takes_two_at_a_time(run):
    """Twenty at once. Whoever asks, this server may refuse a stream while it still counts one that it has just answered."""
    with futures.ThreadPoolExecutor(20) as threads:
        return sum(threads.map(lambda size: asked_again(run, size, "narrow"), range(1, 21)))


def a_server_that_sends_goaway(run):
    """Its connections live for 200 ms: calls go on from one to the next. Whoever asks, a call may meet the GOAWAY."""
    end, calls = time.monotonic() + 2, 0
    while time.monotonic() < end:
        asked_again(run, 10, "short")
        calls += 1
    return calls > 50


def server_dies_mid_stream(run):
    request = wire.output_request((100,) * 1000, interval_us=20_000)
    _, begun = run.call("unary_stream", "StreamingOutputCall", request, server="mortal", wait_for_ready=True)
    next(begun)
    run.servers["mortal"].dies()
    try:
        list(begun)
    except grpc.RpcError:
        pass
    run.servers["mortal"].again()
    end = time.monotonic() + PATIENCE
    while True:
        _, after = run.call("unary_unary", "EmptyCall", server="mortal", wait_for_ready=True)
        # Until the new one is seen; the last connection's end may meet the first call.
        if after.exception() is None or time.monotonic() > end:
            return begun.code().name, outcome(after)


def server_dies_before_it_answers(run):
    call = ("unary_unary", "UnaryCall", wire.simple_request(1, 1))
    _, begun = run.call(*call, name="sleeps", server="mortal", wait_for_ready=True)
    time.sleep(0.5)
    run.servers["mortal"].dies()
    begun.exception()
    run.servers["mortal"].again()
    return begun.code().name


MESSAGE, MESSAGES = 64 * 1024, 1000


def stands_still(count):
    """Waits until a count does not move any more."""
    end, last, since = time.monotonic() + PATIENCE, -1, time.monotonic()
    while time.monotonic() < end and (last < 1 or time.monotonic() - since < 1):
        now = count()
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.05)
    return last


def slow_reader(run):
    """64 MB for somebody who does not read: the server is held back, memory is not filled; then all of it comes."""
    before = run.gateway.memory()
    request = wire.output_request((MESSAGE,) * MESSAGES)
    call, begun = run.call("unary_stream", "StreamingOutputCall", request, channel=run.channel(fresh=True))
    next(begun)
    sent = stands_still(lambda: run.service.sent.get(call, 0))
    grown = run.gateway.memory() - before
    size = MESSAGE + sum(wire.body_size(answer, 1) for answer in begun)
    print(f"    {run.name}: {sent * MESSAGE // 1024} KiB were sent ahead, the gateway grew by {grown // 1024} KiB")
    return sent < MESSAGES // 2, grown < 16 << 20, size


def slow_readers_stall_nobody(run):
    """Eight callers that do not read, and one that does, on connections of their own before the gateway."""
    request = wire.output_request((MESSAGE,) * MESSAGES)
    slow = []
    for _ in range(8):
        channel = run.channel(fresh=True)
        call, begun = run.call("unary_stream", "StreamingOutputCall", request, channel=channel)
        next(begun)
        slow.append((call, begun))
    stands_still(lambda: sum(run.service.sent.get(call, 0) for call, _ in slow))
    size = wire.body_size(run.unary("UnaryCall", wire.simple_request(1_000_000, 1_000_000), timeout=10), 1)
    for _, begun in slow:
        begun.cancel()
    return size, all(run.service.ended[call].wait(PATIENCE) for call, _ in slow)


# Not compared: when the server of the next two learns that the caller is gone. hyper does not reset a stream whose request
# body waits for the server's window once the answer has begun, so it learns through the gateway when it reads on, or at
# the call's deadline.


def slow_server_holds_the_caller_back(run):
    """A server that does not read: the caller is held back, memory is not filled."""
    before, sent = run.gateway.memory(), [0]

    def asks():
        yield wire.output_request((1,))
        for _ in range(MESSAGES):
            sent[0] += 1
            yield wire.output_request((), MESSAGE)

    call, begun = run.call("stream_stream", "FullDuplexCall", asks(), name="sleeps", channel=run.channel(fresh=True))
    next(begun)
    ahead = stands_still(lambda: sent[0])
    grown = run.gateway.memory() - before
    print(f"    {run.name}: {ahead * MESSAGE // 1024} KiB were sent ahead, the gateway grew by {grown // 1024} KiB")
    begun.cancel()
    run.service.ended[call].set()
    return ahead < MESSAGES // 2, grown < 16 << 20


def slow_servers_stall_nobody(run):
    """The other way round: three uploads that nobody reads, and a call on the same connection that goes on."""
    channel, slow = run.channel(fresh=True), []

    def asks():
        yield wire.output_request((1,))
        for _ in range(MESSAGES):
            yield wire.output_request((), MESSAGE)

    for _ in range(3):
        call, begun = run.call("stream_stream", "FullDuplexCall", asks(), name="sleeps", channel=channel)
        next(begun)
        slow.append((call, begun))
    time.sleep(1)
    request = wire.simple_request(1_000_000, 1_000_000)
    size = wire.body_size(run.unary("UnaryCall", request, channel=channel, timeout=10), 1)
    for call, begun in slow:
        begun.cancel()
        run.service.ended[call].set()
    return size


CASES = [
    (empty_unary, True),
    (large_unary, 314159),
    (several_megabytes, 3_900_000),
    (compressed_unary, 314159),
    (client_streaming, [74922]),
    (server_streaming, [31415, 9, 2653, 58979]),
    (ping_pong, (200, 50 * 93056, ("OK", ""))),
    (empty_stream, ([], ("OK", ""))),
    (half_close, ([31415, 31415, 9, 9, 2653, 2653], ("OK", ""))),
    (timeout_on_sleeping_server, (0, "DEADLINE_EXCEEDED", True)),
    (deadline_reaches_the_server, True),
    (no_deadline_reaches_the_server, True),
    (cancel_after_begin, ("CANCELLED", True)),
    (cancel_after_first_response, (31415, "CANCELLED", True)),
    (custom_metadata, [(["test_initial_metadata_value"], [True])] * 2),
    (metadata_as_the_server_sees_it, None),
    (large_metadata, [6000]),
    (status_code_and_message, [("UNKNOWN", "test status message")] * 2),
    (every_status_code, None),
    (special_status_message, (("UNKNOWN", SPECIAL), True)),
    (status_after_answers, ([10, 20], ("FAILED_PRECONDITION", "enough"))),
    (unimplemented_method, "UNIMPLEMENTED"),
    (unimplemented_service, "UNIMPLEMENTED"),
    (hundred_streams_at_once, 100),
    (a_server_that_takes_two_at_a_time, 210),
    (a_server_that_sends_goaway, True),
    (server_dies_mid_stream, ("UNAVAILABLE", ("OK", ""))),
    (server_dies_before_it_answers, "UNAVAILABLE"),
    (slow_reader, (True, True, MESSAGE * MESSAGES)),
    (slow_readers_stall_nobody, (1_000_000, True)),
    (slow_server_holds_the_caller_back, (True, True)),
    (slow_servers_stall_nobody, 1_000_000),
]


def attempt(case, run):
    begun = time.monotonic()
    try:
        result = case(run)
    except grpc.RpcError as error:
        result = ("failed", error.code().name, error.details())
    return result, time.monotonic() - begun


def short(result):
    text = repr(result)
    return text if len(text) <= 44 else text[:41] + "..."


def table(direct, through, only):
    wrong = []
    print(f"{'case':36} {'direct':46} {'through the gateway':46}")
    for case, expected in CASES:
        if only and case.__name__ not in only:
            continue
        results, times = zip(*(attempt(case, run) for run in (direct, through)))
        good = results[0] == results[1] and expected in (None, results[0])
        print(
            f"{case.__name__:36} {short(results[0]):46} {short(results[1]):46} {'ok' if good else 'DIFFERS':8}"
            f"{times[0]:5.1f}s {times[1]:5.1f}s"
        )
        if not good:
            wrong.append((case.__name__, expected, *results))
    return wrong


# --- the gateway's own answers ---


def own_errors(run):
    """Trailers only, with the status that the code's class has and the code as text."""
    session = (("authorization", f"Bearer {run.session.fresh()}"),)
    main, echo = "main", f"/{SERVICE}/EmptyCall"
    cookie = (("cookie", f"__session={run.session.fresh()}; __client_uat=1"),)
    cases = [
        ("no session", main, echo, (), "UNAUTHENTICATED", "session-missing"),
        ("a bad session", main, echo, (("authorization", "Bearer a.b.c"),), "UNAUTHENTICATED", "session-invalid"),
        ("a cookie without an origin", main, echo, cookie, "PERMISSION_DENIED", "origin-forbidden"),
        ("no route", "nobody", echo, session, "UNIMPLEMENTED", "no-route"),
        ("another method's route", main, "/gets.Only/Call", session, "UNIMPLEMENTED", "method-not-allowed"),
        ("a path that is two", main, f"/{SERVICE}/../EmptyCall", session, "INVALID_ARGUMENT", "request-malformed"),
        ("no such template", main, "/no.Template/Call", session, "UNAVAILABLE", "template-unknown"),
        ("no upstream", "nowhere", echo, session, "UNAVAILABLE", "upstream-unreachable"),
        ("an upstream that is slow", "slow", f"/{SERVICE}/UnaryCall", session, "UNAVAILABLE", "upstream-timeout"),
    ]
    wrong = []
    for name, server, method, metadata, code, text in cases:
        call = run.channel(server).unary_unary(method).future(
            b"", metadata=(*metadata, ("x-call", "sleeps")), timeout=PATIENCE
        )
        call.exception()
        trailing = dict(call.trailing_metadata() or ())
        found = (call.code().name, call.details(), trailing.get("x-mintgate-error"))
        good = found == (code, text, text)
        print(f"{name:36} {short(found[:2]):46} {'':46} {'ok' if good else 'WRONG'}")
        if not good:
            wrong.append((name, (code, text, text), found))
    return wrong


def main(only):
    service = Service()
    server, port = wire.serve(service)
    servers = {
        "mortal": Alone(),
        "short": Alone(max_connection_age_ms=200, max_connection_age_grace_ms=5000),
        "narrow": Alone(max_concurrent_streams=2),
    }
    ports = {"main": port} | {name: alone.port for name, alone in servers.items()}
    # Bound, and nobody listens.
    nowhere = __import__("socket").socket()
    nowhere.bind(("127.0.0.1", 0))
    upstreams = [(name, at, "60s") for name, at in ports.items()]
    upstreams += [("slow", port, "300ms"), ("nowhere", nowhere.getsockname()[1], "60s")]
    with tempfile.TemporaryDirectory() as temporary:
        gateway = Gateway(upstreams, temporary)
        try:
            session = Session()
            direct = Run("direct", lambda name: f"127.0.0.1:{ports[name]}", service, session, servers, gateway)
            through = Run("through", lambda _: gateway.address, service, session, servers, gateway)
            names = wire.check_names()
            print("methods:", names if names else f"not compared, since {wire.PROTO} is not there")
            assert names in (None, "as declared"), names
            wrong = table(direct, through, only)
            minted = [dict(seen) for seen in service.calls if "-through-" in dict(seen).get("x-call", "")]
            tokens = {seen.get("authorization") for seen in minted}
            assert minted and all(value and value.startswith("Bearer ") for value in tokens), "a call without a token"
            assert not tokens & session.used, "the caller's own token reached the server"
            assert all(OURS <= seen.keys() for seen in minted), "forwarding headers are missing"
            print(f"{len(minted)} calls carried the minted token")
            if not only:
                wrong += own_errors(through)
            for case in wrong:
                print("WRONG", *case, sep="\n    ")
            return 1 if wrong else 0
        finally:
            gateway.stop()
            for alone in servers.values():
                alone.dies()
            server.stop(None)


if __name__ == "__main__":
    sys.exit(main(set(sys.argv[1:])))

"""The service of gRPC's own interoperability tests, on grpcio, with what it has seen kept for the table.

Messages are read and written by hand: the gateway sees bytes, and so no code has to be generated. Where the .proto files
are at hand, `check_names` holds the methods against them.

    python grpc_service.py [OPTION=NUMBER ...]    serves alone, and prints its port
"""

import collections
import pathlib
import re
import sys
import threading
import time
from concurrent import futures

import grpc

SERVICE = "grpc.testing.TestService"
ECHO_INITIAL = "x-grpc-test-echo-initial"
ECHO_TRAILING = "x-grpc-test-echo-trailing-bin"
PROTO = pathlib.Path(__file__).parents[3] / "shared/data/grpc-testing-protos/test.proto"

# --- messages (the wire format of Protocol Buffers: varints and length-delimited fields) ---


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out) + bytes([number])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value) if value else b""
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(message):
    """Every value of a message by its number."""
    found, at = collections.defaultdict(list), 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        tag = number()
        if tag & 7 == 0:
            found[tag >> 3].append(number())
        else:
            assert tag & 7 == 2, tag
            length = number()
            found[tag >> 3].append(message[at : at + length])
            at += length
    return found


def payload(size):
    return field(2, bytes(size))


def simple_request(size, body, status=None):
    return field(2, size) + field(3, payload(body)) + (field(7, status) if status else b"")


def echo_status(code, message):
    return field(1, code) + field(2, message.encode())


def input_request(body):
    return field(1, payload(body))


def output_request(sizes, body=0, interval_us=0, status=None):
    wanted = b"".join(field(2, field(1, size) + field(2, interval_us)) for size in sizes)
    return wanted + field(3, payload(body)) + (field(7, status) if status else b"")


def body_size(message, number):
    inner = fields(message)[number]
    return len((fields(inner[0])[2] or [b""])[0]) if inner else 0


# --- the service ---


class Service:
    """Answers, and keeps what it has seen."""

    def __init__(self):
        # By the `x-call` of the caller: what came, how long there was, and what became of it.
        self.metadata, self.time, self.ended, self.sent = {}, {}, collections.defaultdict(threading.Event), {}
        self.calls = []

    def begin(self, context):
        seen = list(context.invocation_metadata())
        self.calls.append(seen)
        call = dict(seen).get("x-call", "")
        self.metadata[call] = seen
        self.time[call] = context.time_remaining()
        context.add_callback(self.ended[call].set)
        initial = [(ECHO_INITIAL, value) for name, value in seen if name == ECHO_INITIAL]
        trailing = [(ECHO_TRAILING, value) for name, value in seen if name == ECHO_TRAILING]
        trailing += [("x-big", value) for name, value in seen if name == "x-big"]
        if initial:
            context.send_initial_metadata(initial)
        if trailing:
            context.set_trailing_metadata(trailing)
        return call

    def status(self, found, context):
        if found[7]:
            status = fields(found[7][0])
            code = {code.value[0]: code for code in grpc.StatusCode}[status[1][0]]
            context.abort(code, (status[2] or [b""])[0].decode())

    def empty(self, _request, context):
        self.begin(context)
        return b""

    def unary(self, request, context):
        call = self.begin(context)
        found = fields(request)
        self.status(found, context)
        if call.startswith("sleeps"):
            self.ended[call].wait(60)
        return field(1, payload((found[2] or [0])[0]))

    def outputs(self, found):
        for wanted in found[2]:
            wanted = fields(wanted)
            time.sleep((wanted[2] or [0])[0] / 1e6)
            yield field(1, payload((wanted[1] or [0])[0]))

    def streaming_output(self, request, context):
        call = self.begin(context)
        found = fields(request)
        for answer in self.outputs(found):
            self.sent[call] = self.sent.get(call, 0) + 1
            yield answer
        self.status(found, context)

    def streaming_input(self, requests, context):
        self.begin(context)
        return field(1, sum(body_size(request, 1) for request in requests))

    def full_duplex(self, requests, context):
        call = self.begin(context)
        for request in requests:
            found = fields(request)
            self.status(found, context)
            yield from self.outputs(found)
            if call.startswith("sleeps"):
                self.ended[call].wait(60)

    def half_duplex(self, requests, context):
        self.begin(context)
        for request in list(requests):
            yield from self.outputs(fields(request))

    def handlers(self):
        return {
            "EmptyCall": grpc.unary_unary_rpc_method_handler(self.empty),
            "UnaryCall": grpc.unary_unary_rpc_method_handler(self.unary),
            "StreamingOutputCall": grpc.unary_stream_rpc_method_handler(self.streaming_output),
            "StreamingInputCall": grpc.stream_unary_rpc_method_handler(self.streaming_input),
            "FullDuplexCall": grpc.stream_stream_rpc_method_handler(self.full_duplex),
            "HalfDuplexCall": grpc.stream_stream_rpc_method_handler(self.half_duplex),
        }


def serve(service, port=0, **options):
    workers = futures.ThreadPoolExecutor(max_workers=160)
    # Two servers never share a port: a test that kills one would talk to the other.
    chosen = [("grpc.so_reuseport", 0), *((f"grpc.{name}", value) for name, value in options.items())]
    server = grpc.server(workers, options=chosen)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, service.handlers()),))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server, port


def check_names():
    """Whether methods and the ways that they stream are those of the .proto file; `None` without that file."""
    if not PROTO.exists():
        return None
    text = re.search(r"service TestService \{(.*?)\n\}", PROTO.read_text(), re.DOTALL).group(1)
    declared = {
        name: (bool(up), bool(down))
        for name, up, down in re.findall(r"rpc (\w+)\((stream )?[\w.]+\)\s*returns \((stream )?[\w.]+\)", text)
    }
    own = {name: (of.request_streaming, of.response_streaming) for name, of in Service().handlers().items()}
    return {name: ways for name, ways in own.items() if declared.get(name) != ways} or "as declared"


if __name__ == "__main__":
    given = {name: int(value) for name, value in (argument.split("=") for argument in sys.argv[1:])}
    alone, where = serve(Service(), **given)
    print(where, flush=True)
    alone.wait_for_termination()

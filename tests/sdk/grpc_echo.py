"""A real gRPC client and server with the gateway between them: unary calls, streams, trailers, our own errors.

Both sides are grpcio's, with byte strings for messages. The environment: EMULATOR, the line of `mintgate emulator
--json`, and MINTGATE_BIN. Prints what it has checked; fails on the first thing that is wrong.
"""

import json
import os
import pathlib
import subprocess
import tempfile
import threading
import time
import urllib.request
from concurrent import futures

import grpc

EMULATOR = json.loads(os.environ["EMULATOR"])
SESSION = EMULATOR["sessions"][0]["id"]
PATIENCE = 60


def unary(request, context):
    seen = dict(context.invocation_metadata())
    context.set_trailing_metadata((("x-trailer", "after"), ("x-token", seen.get("authorization", ""))))
    return request


def refuse(_request, context):
    context.set_trailing_metadata((("x-trailer", "refused"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now")


def both(requests, context):
    # One answer for each message before the next one is read: whoever gathers messages hangs here.
    for request in requests:
        yield request
    context.set_trailing_metadata((("x-trailer", "streamed"),))


def upstream():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Refuse": grpc.unary_unary_rpc_method_handler(refuse),
        "Both": grpc.stream_stream_rpc_method_handler(both),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("mintgate.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def gateway(port, directory):
    config = pathlib.Path(directory, "mintgate.toml")
    config.write_text(f"""
[clerk]
secret_key = {{ env = "CLERK_SECRET_KEY" }}
publishable_key = "{EMULATOR['publishable_key']}"
api_url = "{EMULATOR['api_url']}"
[server]
listen = ["127.0.0.1:0"]
[admin]
listen = "127.0.0.1:0"
[upstreams.grpc]
url = "http://127.0.0.1:{port}"
http2 = true
[[routes]]
name = "grpc"
upstream = "grpc"
inject = [{{ header = "authorization", prefix = "Bearer ", template = "plain" }}]
""")
    environment = os.environ | {"CLERK_SECRET_KEY": EMULATOR["secret_key"]}
    arguments = [os.environ["MINTGATE_BIN"], "run", "--config", str(config)]
    process = subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True)
    addresses = {}
    for line in process.stderr:
        # What the configuration is warned about is text.
        line = json.loads(line) if line.startswith("{") else {}
        if "address" in line:
            addresses["admin" if line["message"].startswith("admin") else "data"] = line["address"]
        if len(addresses) == 2:
            break
    else:
        raise SystemExit(f"the gateway ended: {process.wait()}")
    # Nobody reads on otherwise, and the pipe would fill.
    threading.Thread(target=lambda: [None for _ in process.stderr], daemon=True).start()
    end = time.monotonic() + PATIENCE
    while True:
        try:
            urllib.request.urlopen(f"http://{addresses['admin']}/readyz", timeout=PATIENCE).close()
            return process, addresses["data"]
        except OSError:
            assert time.monotonic() < end, "the gateway is never ready"
            time.sleep(0.05)


def check(name, holds, shown=""):
    assert holds, f"{name}: {shown}"
    print(f"ok  {name}")


def trailers(call):
    return dict(call.trailing_metadata())


def main(address):
    with urllib.request.urlopen(f"{EMULATOR['api_url']}/_emulator/token?session={SESSION}", timeout=PATIENCE) as answer:
        token = answer.read().decode()
    session = (("authorization", f"Bearer {token}"),)
    with grpc.insecure_channel(address) as channel:
        echo = channel.unary_unary("/mintgate.Echo/Unary")
        for size in (0, 1, 100_000, 3_000_000):
            message = bytes(index % 251 for index in range(size))
            answer, call = echo.with_call(message, metadata=session, timeout=PATIENCE)
            check(f"a message of {size} bytes", answer == message)
            check("its trailers", trailers(call).get("x-trailer") == "after", trailers(call))
            injected = trailers(call)["x-token"]
            check("the token is ours", injected.startswith("Bearer ") and token not in injected, injected)

        try:
            channel.unary_unary("/mintgate.Echo/Refuse")(b"", metadata=session, timeout=PATIENCE)
            raise AssertionError("the refusal was lost")
        except grpc.RpcError as error:
            check("the server's status", error.code() == grpc.StatusCode.FAILED_PRECONDITION, error)
            check("its text", error.details() == "not now", error)
            check("its trailers", trailers(error).get("x-trailer") == "refused", error)

        for metadata, code in ((None, "session-missing"), ((("authorization", "Bearer a.b.c"),), "session-invalid")):
            try:
                echo(b"", metadata=metadata, timeout=PATIENCE)
                raise AssertionError("a call without a session was let through")
            except grpc.RpcError as error:
                check(f"{code} is a status of gRPC", error.code() == grpc.StatusCode.UNAUTHENTICATED, error)
                check("its text is the code", error.details().startswith(code), error)

        answered = threading.Semaphore(0)

        def asks():
            for index in range(200):
                yield str(index).encode()
                # The next message waits for the answer to this one.
                assert answered.acquire(timeout=PATIENCE), "an answer was held back"

        call = channel.stream_stream("/mintgate.Echo/Both")(asks(), metadata=session, timeout=PATIENCE)
        count = 0
        for answer in call:
            assert answer == str(count).encode(), (answer, count)
            count += 1
            answered.release()
        check("200 messages each way, one by one", count == 200, count)
        check("their trailers", trailers(call).get("x-trailer") == "streamed", trailers(call))


if __name__ == "__main__":
    grpc_server, grpc_port = upstream()
    with tempfile.TemporaryDirectory() as temporary:
        mintgate, data = gateway(grpc_port, temporary)
        try:
            main(data)
        finally:
            mintgate.terminate()
            mintgate.wait(PATIENCE)
            grpc_server.stop(None)

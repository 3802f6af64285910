"""Callers of HTTP/1.1 and HTTP/2 that do one thing at a time, for measurements that must repeat."""


class Http1:
    """Writes requests of HTTP/1.1 on one connection and reads the answers."""

    def __init__(self, connection):
        self.connection, self.rest = connection, b""

    def ask(self, credential):
        lines = ["GET /api/thing?x=1 HTTP/1.1", "host: app.example.test", "user-agent: bench/1.0", "accept: */*"]
        self.connection.sendall(("\r\n".join([*lines, *credential]) + "\r\n\r\n").encode())

    def head(self):
        head, _, self.rest = until(self.connection, b"\r\n\r\n").partition(b"\r\n\r\n")
        return head.startswith(b"HTTP/1.1 200 ")

    def body(self, length):
        while len(self.rest) < length:
            self.rest += some(self.connection)
        got, self.rest = self.rest[:length], self.rest[length:]
        return got

    def end(self):
        return not self.rest


class Http2:
    """The same of HTTP/2 in clear text. The first request puts its headers into the table, the others point there."""

    def __init__(self, connection):
        self.connection, self.stream, self.rest, self.known = connection, -1, b"", None
        self.data, self.ended = b"", False
        windows = frame(4, 0, 0, b"\0\4\x7f\xff\xff\xff") + frame(8, 0, 0, b"\x7f\xff\0\0")
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + windows)

    def ask(self, credential):
        fields = [(":authority", "app.example.test"), (":path", "/api/thing?x=1"), ("user-agent", "bench/1.0"), ("accept", "*/*")]
        fields += [tuple(line.split(": ", 1)) for line in credential]
        block = b"\x82\x86"  # :method GET, :scheme http
        if self.known == fields:
            block += bytes(0x80 | 61 + number for number in range(len(fields), 0, -1))
        else:
            block += b"".join(b"\x40" + text(name) + text(value) for name, value in fields)
            self.known = fields
        self.stream, self.data, self.ended = self.stream + 2, b"", False
        self.connection.sendall(frame(1, 5, self.stream, block))

    def head(self):
        while True:
            kind, payload = self.next()
            if kind == 1:
                return payload[:1] == b"\x88"  # :status 200

    def body(self, length):
        while len(self.data) < length:
            kind, payload = self.next()
            if kind == 0:
                self.data += payload
        got, self.data = self.data[:length], self.data[length:]
        return got

    def end(self):
        while not self.ended:
            self.next()
        return not self.data

    def next(self):
        kind, flags, stream, payload = self.frame()
        if kind == 4 and not flags & 1:
            self.connection.sendall(frame(4, 1, 0, b""))
        if kind in (3, 7):
            raise SystemExit(f"the gateway ended a stream or the connection: {payload!r}")
        self.ended |= stream == self.stream and kind in (0, 1) and bool(flags & 1)
        return kind, payload

    def frame(self):
        while len(self.rest) < 9 or len(self.rest) < 9 + int.from_bytes(self.rest[:3]):
            self.rest += some(self.connection)
        end = 9 + int.from_bytes(self.rest[:3])
        kind, flags, stream = self.rest[3], self.rest[4], int.from_bytes(self.rest[5:9])
        payload, self.rest = self.rest[9:end], self.rest[end:]
        return kind, flags, stream, payload


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def text(value):
    """A string of HPACK, without Huffman's code."""
    raw, length = value.encode(), len(value)
    if length < 127:
        return bytes([length]) + raw
    prefix, length = b"\x7f", length - 127
    while length > 127:
        prefix, length = prefix + bytes([length & 127 | 128]), length >> 7
    return prefix + bytes([length]) + raw


def some(connection):
    got = connection.recv(1 << 20)
    if not got:
        raise SystemExit("a connection was closed early")
    return got


def until(connection, end):
    got = b""
    while end not in got:
        got += some(connection)
    return got

"""A WebSocket client that does only what it is told to, over a raw connection."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import struct

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Refused(Exception):  # noqa: N818  # reads better
    """The server answered the handshake with something else than 101."""

    def __init__(self, head: str, body: bytes) -> None:
        super().__init__(head)
        self.status = int(head.split()[1])
        self.body = json.loads(body)


class Client:
    """One connection; `recv` answers neither pings nor closes."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer
        self.head = ""

    @classmethod
    async def connect(cls, port, *, path="/ws", receive_buffer=None, **headers):
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)  # noqa: FBT003  # its own signature
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        # The small limit makes asyncio stop reading when the test does.
        client = cls(*await asyncio.open_connection(sock=sock, limit=4096))
        await client.shake_hands(port, path, headers)
        return client

    async def shake_hands(self, port, path, headers):
        lines = {
            "Host": f"127.0.0.1:{port}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            "Sec-WebSocket-Version": "13",
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        self.writer.write(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
        self.head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        if " 101 " not in self.head:
            length = int(self.head.lower().split("content-length: ")[1].split()[0])
            body = await self.reader.readexactly(length)
            await self.close()
            raise Refused(self.head, body)

    def send(self, message, opcode=TEXT):
        """Send a frame: an object as JSON, text or bytes as they are."""
        if not isinstance(message, bytes):
            message = (message if isinstance(message, str) else json.dumps(message)).encode()
        size = len(message)
        if size < 126:
            head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
        elif size < 65536:
            head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
        self.writer.write(head + b"\0\0\0\0" + message)

    async def frame(self):
        """Return the next frame: opcode and payload."""
        first, size = await self.reader.readexactly(2)
        assert first & 0x70 == 0
        if size == 126:
            (size,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
        return first & 15, await self.reader.readexactly(size)

    async def recv(self):
        """Return the next message, or the (code, reason) the server closes with."""
        while True:
            opcode, payload = await self.frame()
            if opcode == TEXT:
                return json.loads(payload)
            if opcode == CLOSE:
                return struct.unpack("!H", payload[:2])[0], payload[2:].decode()

    async def is_over(self):
        """Wait until the server has ended the connection."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(1 << 16):
                pass
        return True

    async def close(self):
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

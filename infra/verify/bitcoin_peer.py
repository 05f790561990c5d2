"""A Bitcoin peer on regtest that shows as much of a chain as it is told to: what nodes of the
scenes sync from. Knows just enough of the protocol (version 1 transport) for that."""

import hashlib
import socket
import struct
import threading
import time

MAGIC = bytes.fromhex("fabfb5da")
MSG_BLOCK = 2
WITNESS = 1 << 30
MAX_HEADERS = 2000


def sha256d(data):
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def compact_size(number):
    if number < 0xFD:
        return bytes([number])
    return b"\xfd" + struct.pack("<H", number)


def read_blocks(path):
    """The blocks of a file in blk-file framing, as pulse-node simulate writes it."""
    data, blocks, at = open(path, "rb").read(), [], 0
    while at < len(data):
        length = struct.unpack_from("<I", data, at + 4)[0]
        blocks.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    return blocks


class Peer:
    """Shows headers of the first `headers` blocks and gives the first `blocks` of them."""

    def __init__(self, blocks, shown=None):
        self.lock = threading.Lock()
        self.clients = []
        self.switch(blocks, shown)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def switch(self, blocks, shown=None):
        """Another chain from now on."""
        with self.lock:
            self.chain = blocks
            self.place = {sha256d(block[:80]): at for at, block in enumerate(blocks)}
            self.headers = self.blocks = len(blocks) if shown is None else shown
        self._announce()

    def show(self, headers, blocks=None):
        """More of the chain; `blocks` of it can be had, if not all."""
        with self.lock:
            self.headers = headers
            self.blocks = headers if blocks is None else blocks
        self._announce()

    def close(self):
        """Nobody is there any more."""
        # Wakes the thread that waits for clients.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for client in list(self.clients):
            # Wakes the thread that reads from it, too.
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        try:
            self._talk(client)
        except (OSError, EOFError):
            pass
        finally:
            if client in self.clients:
                self.clients.remove(client)
            client.close()

    def _talk(self, client):
        reader = client.makefile("rb")
        while True:
            head = reader.read(24)
            if len(head) < 24:
                raise EOFError
            command = head[4:16].rstrip(b"\0").decode()
            payload = reader.read(struct.unpack_from("<I", head, 16)[0])
            if command == "version":
                self._send(client, "version", self._version())
                self._send(client, "verack")
            elif command == "verack":
                self.clients.append(client)
            elif command == "ping":
                self._send(client, "pong", payload)
            elif command == "getheaders":
                self._send(client, "headers", self._headers(payload))
            elif command == "getdata":
                self._blocks(client, payload)

    def _version(self):
        address = bytes(26)
        return (
            struct.pack("<iQq", 70016, 0x409, int(time.time()))
            + address
            + address
            + struct.pack("<Q", id(self))
            + b"\x06/test/"
            + struct.pack("<i?", self.headers - 1, True)
        )

    def _headers(self, payload):
        count, at = payload[4], 5
        if count == 0xFD:
            count, at = struct.unpack_from("<H", payload, 5)[0], 7
        begin = 0
        with self.lock:
            for number in range(count):
                known = self.place.get(payload[at + 32 * number : at + 32 * number + 32])
                if known is not None and known < self.headers:
                    begin = known
                    break
            shown = self.chain[begin + 1 : min(self.headers, begin + 1 + MAX_HEADERS)]
        return compact_size(len(shown)) + b"".join(block[:80] + b"\0" for block in shown)

    def _blocks(self, client, payload):
        count, at = payload[0], 1
        if count == 0xFD:
            count, at = struct.unpack_from("<H", payload, 1)[0], 3
        for number in range(count):
            kind, name = struct.unpack_from("<I32s", payload, at + 36 * number)
            with self.lock:
                place = self.place.get(name)
                block = self.chain[place] if place is not None and place < self.blocks else None
            if block is not None and kind & ~WITNESS == MSG_BLOCK:
                self._send(client, "block", block)

    def _announce(self):
        with self.lock:
            newest = self.chain[self.headers - 1][:80]
        for client in list(getattr(self, "clients", [])):
            try:
                self._send(client, "inv", b"\1" + struct.pack("<I", MSG_BLOCK) + sha256d(newest))
            except OSError:
                pass

    @staticmethod
    def _send(client, command, payload=b""):
        head = struct.pack("<4s12sI4s", MAGIC, command.encode(), len(payload), sha256d(payload)[:4])
        client.sendall(head + payload)

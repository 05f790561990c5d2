#!/usr/bin/env python3
"""Network namespaces, and the wire between them, which delays, loses and cuts.

    wire.py PREFIX COUNT      namespaces PREFIX-1 .. PREFIX-COUNT; needs the rights of root

Each namespace has a TUN device with the address 198.18.N.K (K from 1 to COUNT, N by chance), the
caller's own namespace one with 198.18.N.254. Packets between the caller and the others go through as
they are. Those between two of the others obey the commands on standard input, each answered by a
line:

    delay MILLISECONDS        for each packet, one way
    lose PERCENT              of the packets, by a generator with a fixed seed
    cut K,K,.. K,K,..         between these two groups
    heal

The first line of output is "ready NETWORK" (198.18.N) or "impossible WHY". All is gone when standard
input ends.
"""

import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
CALLER = 254
MTU = 1400
# Packets that are on the wire at a time; what comes beyond is lost, as on any wire.
MOST = 20_000


def ip(*args):
    subprocess.run(["ip", *args], check=True, capture_output=True, text=True)


class Wire:
    def __init__(self, prefix, count):
        self.names = [f"{prefix}-{k}" for k in range(1, count + 1)]
        self.network = f"198.18.{random.SystemRandom().randrange(256)}"
        self.devices = {}
        self.delay = 0.0
        self.loss = 0.0
        self.groups = (frozenset(), frozenset())
        self.chance = random.Random(1)
        self.flying = []
        self.number = 0

    def open(self):
        for k, name in enumerate(self.names, 1):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
            self.plug(k, name)
        self.plug(CALLER, None)

    def plug(self, k, name):
        """A device is made here and then moved, with its end still ours."""
        device = f"pw{os.getpid() % 100_000:05d}x{k}"
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        request = struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI)
        fcntl.ioctl(fd, TUNSETIFF, request)
        self.devices[k] = fd
        inside = []
        if name:
            ip("link", "set", device, "netns", name)
            inside = ["-n", name]
        ip(*inside, "addr", "add", f"{self.network}.{k}/24", "dev", device)
        ip(*inside, "link", "set", device, "mtu", str(MTU), "multicast", "on", "up")

    def close(self):
        for fd in self.devices.values():
            os.close(fd)
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def obey(self, line):
        words = line.split()
        if words[0] == "delay":
            self.delay = float(words[1]) / 1000
        elif words[0] == "lose":
            self.loss = float(words[1]) / 100
        elif words[0] == "cut":
            one, other = (frozenset(map(int, group.split(","))) for group in words[1:])
            self.groups = (one, other)
        elif words[0] == "heal":
            self.groups = (frozenset(), frozenset())
        else:
            sys.exit(f"wire.py: {line!r}")
        print("done", flush=True)

    def take(self, source, packet):
        if len(packet) < 20 or packet[0] >> 4 != 4 or len(self.flying) >= MOST:
            return
        target = packet[19] if packet[16:19] == self.prefix() else None
        if target not in self.devices:
            return  # Multicast and the like stay where they are.
        delay = 0.0
        if CALLER not in (source, target):
            one, other = self.groups
            is_cut = (source in one and target in other) or (source in other and target in one)
            if is_cut or self.chance.random() < self.loss:
                return
            delay = self.delay
        self.number += 1
        heapq.heappush(self.flying, (time.monotonic() + delay, self.number, target, packet))

    def prefix(self):
        return bytes(int(part) for part in self.network.split("."))

    def deliver(self):
        while self.flying and self.flying[0][0] <= time.monotonic():
            _, _, target, packet = heapq.heappop(self.flying)
            try:
                os.write(self.devices[target], packet)
            except OSError:
                pass  # Its device is full: the packet is lost.

    def run(self):
        # Descriptors below the buffers of sys.stdin, so that select sees all there is.
        commands, rest = sys.stdin.fileno(), b""
        by_fd = {fd: k for k, fd in self.devices.items()}
        while True:
            wait = None
            if self.flying:
                wait = max(0.0, self.flying[0][0] - time.monotonic())
            readable, _, _ = select.select([commands, *by_fd], [], [], wait)
            for fd in readable:
                if fd == commands:
                    read = os.read(commands, 4096)
                    if not read:
                        return
                    *lines, rest = (rest + read).split(b"\n")
                    for line in lines:
                        self.obey(line.decode())
                    continue
                for _ in range(64):
                    try:
                        self.take(by_fd[fd], os.read(fd, 65_536))
                    except OSError:
                        break
            self.deliver()


def main():
    wire = Wire(sys.argv[1], int(sys.argv[2]))
    try:
        try:
            wire.open()
        except (OSError, subprocess.CalledProcessError) as err:
            why = getattr(err, "stderr", None) or err
            print("impossible", str(why).strip().replace("\n", " "), flush=True)
            return
        print("ready", wire.network, flush=True)
        wire.run()
    finally:
        wire.close()


main()

"""What the scenes in Python share: a folder, processes, and nodes of our binary."""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from bitcoin_peer import read_blocks

ROOT = Path(__file__).resolve().parents[2]
NODE = os.environ.get("NODE_BINARY", str(ROOT / "target/release/pulse-node"))
# Longest time for anything, in seconds.
PATIENCE = 240


def wait_for(what, condition, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {patience} s")
        time.sleep(0.25)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def get(url, body=None, timeout=30):
    with urllib.request.urlopen(url, data=body, timeout=timeout) as answer:
        return answer.read()


class Scene:
    """A folder and processes, both gone at the end."""

    def __init__(self):
        self.work = Path(tempfile.mkdtemp(prefix="pulse-scene-"))
        self.processes = []
        # Done before the processes are ended, and after.
        self.release = []
        self.undo = []
        # From the end on, what is asked need not be there.
        self.over = False

    def run(self, name, command, **options):
        log = open(self.work / f"{name}.log", "ab")
        process = subprocess.Popen(command, stdout=log, stderr=log, **options)
        self.processes.append(process)
        return process

    def chain(self, name, blocks, seed):
        """A generated chain, genesis first."""
        path = self.work / f"{name}.blk"
        command = [NODE, "simulate", "--blocks", str(blocks), "--seed", str(seed)]
        command += ["--txs-per-block", "20", "--uneven", "--out", str(path)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return read_blocks(path)

    def show_logs(self):
        """The ends of all logs."""
        for log in sorted(self.work.glob("*.log")):
            tail = log.read_text(errors="replace").splitlines()[-8:]
            print(f"--- {log.name}", *tail, sep="\n", file=sys.stderr)

    def close(self):
        self.over = True
        for release in self.release:
            release()
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
        for process in self.processes:
            process.wait()
        for undo in reversed(self.undo):
            undo()
        shutil.rmtree(self.work, ignore_errors=True)


class Node:
    """A node of our binary. Its targets have the job `job`."""

    def __init__(self, scene, name, peers, job=None, files=None, **settings):
        self.scene, self.name, self.files = scene, name, files
        self.job = job or name
        self.data = scene.work / name
        self.ops = f"127.0.0.1:{free_port()}"
        self.command = [NODE, "--network", "regtest", "--min-chain-work", "0"]
        self.command += ["--data-dir", str(self.data), "--http-addr", "127.0.0.1:0"]
        self.command += ["--ops-addr", self.ops]
        for peer in peers:
            self.command += ["--connect", peer.address]
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PULSE_")}
        self.environment = clean | {"PULSE_P2P__V2_TRANSPORT": "false"} | settings
        self.process = None

    def start(self):
        (self.data / "listen.json").unlink(missing_ok=True)
        limit = None
        if self.files:

            def limit():
                resource.setrlimit(resource.RLIMIT_NOFILE, (self.files, self.files))

        self.process = self.scene.run(
            self.name, self.command, env=self.environment, preexec_fn=limit
        )
        wait_for(f"{self.name} listens", (self.data / "listen.json").exists)
        return self

    def listens(self, what):
        return json.loads((self.data / "listen.json").read_text())[what]

    def stats(self):
        return json.loads(self.ask("/stats"))

    def ask(self, path, body=None, timeout=30):
        return get(f"http://{self.listens('http')}{path}", body, timeout)

    def height(self):
        try:
            return int(self.ask("/blocks/tip/height"))
        except OSError:
            return -1

    def synced_to(self, height):
        wait_for(f"{self.name} is at block {height}", lambda: self.height() == height)
        return self

    def kill(self):
        self.process.kill()
        self.process.wait()

    def target(self):
        return {"targets": [self.ops], "labels": {"job": self.job, "host": self.name}}

#!/usr/bin/env python3
"""Causes the reason of each alert once, with live nodes, and waits until a real Prometheus with
our rules says that it fires.

Before that, nothing may fire although all nodes run: so it is the cause that makes it fire.
Rules are those of infra/monitoring with all durations divided by FASTER, and days by
FASTER_DAYS; nothing else is changed. What cannot be caused on one machine stands in IMPOSSIBLE, with the reason; together
they must be all alerts that there are.

    NODE_BINARY=target/release/pulse-node alerts.py [ALERT...]

Needs root, for a loop device that can be full.
"""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse

import blake3
import plyvel
from bitcoin_peer import Peer
from scene import NODE, PATIENCE, ROOT, Node, Scene, free_port, get, wait_for

MONITORING = ROOT / "infra/monitoring/prometheus"
# How many times as fast the rules' time goes by.
FASTER = 120
# The same for times with the unit of days, of which there is one week; others are in seconds.
FASTER_DAYS = 60 * FASTER
# Time in which nothing may fire before the causes.
CALM = 20

IMPOSSIBLE = {
    "PulseHandlerPanicked": "a fault of the program is its reason, and no request is known that "
    "meets one; the counter is tested in api/src/layers.rs and api/src/blocking.rs",
    "PulseErrors": "answers of 5xx besides 503 come from such faults alone: whatever else is in "
    "the way of an answer, a damaged disk included, is a 503 with alerts of its own",
}

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def faster(rules):
    """The rules with every duration of an expression or a `for` divided by FASTER."""

    def duration(match):
        faster = FASTER_DAYS if match[2] == "d" else FASTER
        seconds = int(match[1]) * UNITS[match[2]] / faster
        return f"{max(1, round(seconds * 1000))}ms"

    lines = []
    for line in rules.splitlines():
        if "summary:" not in line and not line.strip().startswith("#"):
            line = re.sub(r"\b(\d+)([smhd])\b", duration, line)
            # Durations in seconds, without a unit.
            line = re.sub(r"\b7200\b", str(7200 // FASTER), line)
            line = re.sub(r"\b7 \* 86400\b", str(7 * 86400 // FASTER), line)
        lines.append(line)
    return "\n".join(lines) + "\n"


class Prometheus:
    def __init__(self, scene):
        self.work = scene.work / "prometheus"
        self.seen = set()
        shutil.copytree(MONITORING, self.work)
        (self.work / "targets").mkdir()
        rules = self.work / "rules/pulse-node.yml"
        rules.write_text(faster(rules.read_text()))
        config = self.work / "prometheus.yml"
        config.write_text(config.read_text().replace("_interval: 15s", "_interval: 1s"))
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        scene.run(
            "prometheus",
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={scene.work}/tsdb",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
        )
        wait_for("Prometheus", self.is_there)

    def is_there(self):
        try:
            return get(f"{self.url}/-/ready")
        except OSError:
            return None

    def watch(self, nodes, machines=()):
        """These targets from now on."""

        def write(name, targets):
            # As a whole: Prometheus reads it when it changes.
            path = self.work / "targets" / name
            path.with_suffix(".new").write_text(json.dumps(targets))
            path.with_suffix(".new").rename(path)

        write("pulse-node.json", [node.target() for node in nodes])
        write(
            "machine.json",
            [
                {"targets": [address], "labels": {"host": host}}
                for address, host in machines
            ],
        )

    def query(self, expression):
        query = urllib.parse.urlencode({"query": expression})
        return json.loads(get(f"{self.url}/api/v1/query?{query}"))["data"]["result"]

    def value(self, expression):
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None

    def firing(self):
        alerts = json.loads(get(f"{self.url}/api/v1/alerts"))["data"]["alerts"]
        return [alert["labels"] for alert in alerts if alert["state"] == "firing"]

    def look(self):
        """Notes what fires, for as long as there is something to ask: some alerts are over
        before all causes are there."""
        while True:
            try:
                for labels in self.firing():
                    self.seen.add((labels["alertname"], labels.get("job"), labels.get("mountpoint")))
            except OSError:
                pass
            time.sleep(0.5)

    def fires(self, name, job, mountpoint=None):
        """Whether it has fired."""
        return (name, job, mountpoint) in self.seen


class Causes:
    """One method for each cause, which gives what fires then: (alert, job)."""

    def __init__(self, scene):
        self.scene = scene
        self.blocks = scene.chain("chain", 320, 1)
        self.other = scene.chain("other", 140, 2)
        self.threads = []

    def peer(self, shown=None):
        return Peer(self.blocks, shown)

    # --- before anything goes wrong

    def prepare(self, prometheus):
        """Starts all that is to go wrong, while it is right."""
        self.prometheus = prometheus
        scene = self.scene
        # A chain that grows: nodes whose trouble is none of a quiet network.
        self.tip = 200
        self.growing = [self.peer(self.tip) for _ in range(4)]

        def node(name, peers=None, start=True, **settings):
            made = Node(scene, name, self.growing if peers is None else peers, **settings)
            return made.start() if start else made

        usual = {"job": "pulse-node"}
        self.down = node("down", **usual)
        self.restarting = node("restarting", **usual)
        self.crowded = node(
            "crowded",
            files=700,
            PULSE_ELECTRUM__ADDR="127.0.0.1:0",
            PULSE_ELECTRUM__MAX_CONNECTIONS_PER_ADDRESS="0",
            PULSE_INDEX__MAX_OPEN_FILES="64",
            **usual,
        )
        self.damaged = node("damaged")
        self.lost = node("lost")
        self.busy = node(
            "busy", PULSE_HTTP__MAX_QUERIES="1", PULSE_HTTP__QUEUE_WAIT_SECS="4"
        )
        self.cut_off_peers = [self.peer(self.tip) for _ in range(4)]
        self.cut_off = node("cut-off", self.cut_off_peers)
        self.stalling = [self.peer(self.tip) for _ in range(4)]
        self.stalled = node("stalled", self.stalling)
        self.forking = [Peer(self.other, 120) for _ in range(4)]
        self.reorganised = node("reorganised", self.forking)
        self.left, self.right = ([self.peer(self.tip) for _ in range(4)] for _ in range(2))
        self.disagreeing = [
            node("disagree-one", self.left, job="disagreeing"),
            node("disagree-two", self.right, job="disagreeing"),
        ]
        self.certificate(400)
        self.expiring = node(
            "expiring",
            PULSE_HTTP__TLS_CERT=str(scene.work / "cert.pem"),
            PULSE_HTTP__TLS_KEY=str(scene.work / "key.pem"),
        )
        self.fleet_key = scene.work / "fleet.key"
        self.fleet_key.write_text("11" * 32)
        fleet = {"PULSE_FLEET__KEY_FILE": str(self.fleet_key), "PULSE_FLEET__LOOKUP_SECS": "1"}
        self.strange_address = f"127.0.0.1:{free_port()}"
        self.sibling_address = f"127.0.0.1:{free_port()}"
        self.sibling = node("sibling", PULSE_FLEET__LISTEN=self.sibling_address, **fleet)
        self.lagging = node(
            "lagging",
            PULSE_FLEET__LISTEN="127.0.0.1:0",
            PULSE_FLEET__SEEDS=json.dumps([self.sibling_address]),
            **fleet,
        )
        self.hung = self.on_own_disk(self.lagging)
        self.strange = [
            node(name, [], start=False, job="strange", PULSE_FLEET__LISTEN=listen,
                 PULSE_FLEET__SEEDS=json.dumps(seeds), PULSE_FLEET__ONLY_SIBLINGS="true",
                 **fleet, **settings)
            for name, listen, seeds, settings in [
                ("honest", self.strange_address, [], {}),
                ("dishonest", "127.0.0.1:0", [self.strange_address], {"PULSE_NODE__SIGNET_CHALLENGE": "51"}),
            ]
        ]  # fmt: skip
        for one in self.strange:
            one.command[one.command.index("regtest")] = "signet"
        # Siblings that offer a snapshot: a true one and a forged one.
        self.believing = self.newcomer("believing", self.offer("vouching"))
        self.deceived = self.newcomer("deceived", self.offer("forging", self.forge))
        # Only started later: their trouble begins with the start.
        self.quiet_peer = self.peer(self.tip)
        self.quiet = node("quiet", [self.quiet_peer], start=False)
        self.lonely = node("lonely", [], start=False)
        self.alone = node("alone", start=False, PULSE_FLEET__LISTEN="127.0.0.1:0", **fleet)
        self.calm = [
            self.down, self.restarting, self.crowded, self.damaged, self.lost, self.busy,
            self.cut_off, self.stalled, self.reorganised, *self.disagreeing, self.expiring,
            self.sibling, self.lagging,
        ]  # fmt: skip
        for one in self.calm:
            one.synced_to(119 if one is self.reorganised else self.tip - 1)
        self.exporters()
        self.machines = [(self.machine, "damaged"), (self.poor_machine, "poor")]
        self.in_background(self.grow)

    def offer(self, name, change=lambda folder: None):
        """A node that offers a snapshot of itself, changed so."""
        key = self.scene.work / "snapshots.key"
        key.write_text("22" * 32)
        address = f"127.0.0.1:{free_port()}"
        shelf = self.scene.work / f"{name}-shelf"
        peers = [self.peer(100)]
        settings = {
            "PULSE_FLEET__KEY_FILE": str(key),
            "PULSE_FLEET__LISTEN": address,
            "PULSE_FLEET__SNAPSHOTS_DIR": str(shelf),
        }
        node = Node(self.scene, name, peers, **settings).start().synced_to(99)
        made = self.scene.work / f"{name}-snapshot"
        command = [NODE, "--network", "regtest", "--data-dir", str(node.data)]
        subprocess.run([*command, "snapshot", "create", str(made)], check=True, stdout=subprocess.DEVNULL)
        change(made)
        shelf.mkdir()
        made.rename(shelf / "one")
        return {
            "PULSE_FLEET__KEY_FILE": str(key),
            "PULSE_FLEET__LISTEN": "127.0.0.1:0",
            "PULSE_FLEET__LOOKUP_SECS": "1",
            "PULSE_FLEET__ONLY_SIBLINGS": "true",
            "PULSE_FLEET__SEEDS": json.dumps([address]),
        }

    def newcomer(self, name, settings):
        """A node that will begin with the snapshot of a sibling."""
        node = Node(self.scene, name, [], **settings)
        node.command += ["--bootstrap", "snapshot"]
        return node

    def forge(self, folder):
        """Takes one unspent output away, and makes the hashes fit."""
        chainstate = folder / "kernel/chainstate"
        with plyvel.DB(str(chainstate), compression=None) as coins:
            coins.delete(next(coins.iterator(prefix=b"C", include_value=False)))
        for path in chainstate.glob("LO*"):
            path.unlink()
        manifest = json.loads((folder / "manifest.json").read_text())
        place = "kernel/chainstate/"
        files = [file for file in manifest["files"] if not file["path"].startswith(place)]
        for path in chainstate.iterdir():
            data, length = path.read_bytes(), manifest["chunk_len"]
            chunks = [data[at : at + length] for at in range(0, len(data), length)]
            hashes = [blake3.blake3(chunk).hexdigest() for chunk in chunks]
            files.append({"path": place + path.name, "size": len(data), "chunks": hashes})
        manifest["files"] = sorted(files, key=lambda file: file["path"])
        text = json.dumps(manifest).encode()
        (folder / "manifest.json").write_bytes(text)
        (folder / "manifest.b3").write_text(f"{blake3.blake3(text).hexdigest()}  manifest.json\n")

    def in_background(self, work):
        def until_over():
            try:
                work()
            except (OSError, SystemExit) as error:
                # At the end nodes and Prometheus are gone before those who ask them.
                if not self.scene.over:
                    print(f"alerts: {work.__name__}: {error}", file=sys.stderr)

        thread = threading.Thread(target=until_over, daemon=True)
        thread.start()
        self.threads.append(thread)

    def grow(self):
        """A block now and then, as on a network that lives."""
        while self.tip < len(self.blocks) - 40:
            time.sleep(8)
            self.tip += 1
            for peer in self.growing:
                peer.show(self.tip)

    def certificate(self, days):
        work = self.scene.work
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"]
        command += ["ec_paramgen_curve:prime256v1", "-nodes", "-days", str(days)]
        command += ["-subj", "/CN=localhost", "-keyout", f"{work}/key.new", "-out", f"{work}/cert.new"]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        (work / "key.new").rename(work / "key.pem")
        (work / "cert.new").rename(work / "cert.pem")

    def on_own_disk(self, node):
        """Puts the index of a node on a disk of its own; where that is."""
        wait_for(f"{node.name} is at the tip", lambda: node.height() == self.tip - 1)
        node.process.terminate()
        node.process.wait()
        disk = self.loop_disk("index-disk")
        index = node.data / "index"
        shutil.copytree(index, disk / "index")
        shutil.rmtree(index)
        index.symlink_to(disk / "index")
        node.start()
        return disk

    def loop_disk(self, name):
        disk = self.scene.work / name
        disk.mkdir()
        image = self.scene.work / f"{name}.img"
        with open(image, "wb") as file:
            file.truncate(256 << 20)
        subprocess.run(["mkfs.ext4", "-q", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, disk], check=True)
        self.scene.undo.append(lambda: subprocess.run(["umount", "-l", disk], check=False))
        return disk

    def exporters(self):
        """The exporter of this machine with a disk of its own, and one of a machine that is
        short of memory: taking this one's memory would end whatever else runs here."""
        work = self.scene.work
        self.disk = self.loop_disk("disk")
        self.machine = self.exporter("machine", ["--collector.disable-defaults", "--collector.filesystem"])
        procfs = work / "procfs"
        procfs.mkdir()
        self.meminfo = procfs / "meminfo"
        self.memory(50)
        self.poor_machine = self.exporter(
            "poor", [f"--path.procfs={procfs}", "--collector.disable-defaults", "--collector.meminfo"]
        )

    def exporter(self, name, arguments):
        address = f"127.0.0.1:{free_port()}"
        command = ["prometheus-node-exporter", f"--web.listen-address={address}", *arguments]
        self.scene.run(name, command)
        return address

    def memory(self, percent):
        total = 8 << 20
        text = f"MemTotal: {total} kB\nMemFree: 1000 kB\nMemAvailable: {total * percent // 100} kB\n"
        self.meminfo.write_text(text)

    # --- what goes wrong

    def killed(self):
        self.down.kill()
        return [("PulseNodeDown", "pulse-node")]

    def restarts(self):
        """Ends again and again, as a process that runs out of memory."""

        def again():
            while not self.prometheus.fires("PulseRestarting", "pulse-node"):
                # Times of start are whole seconds: these must differ.
                time.sleep(1.1)
                was = self.prometheus.value('process_start_time_seconds{host="restarting"}')
                self.restarting.kill()
                self.restarting.start()
                wait_for(
                    "the restart is seen",
                    lambda: self.prometheus.value('process_start_time_seconds{host="restarting"}')
                    not in (None, was),
                )

        self.in_background(again)
        return [("PulseRestarting", "pulse-node")]

    def crowd(self):
        """Clients take nearly all descriptors."""
        host, port = self.crowded.listens("electrum")["tcp"].rsplit(":", 1)
        used = self.prometheus.value('process_open_fds{host="crowded"}')
        count = int(self.crowded.files * 0.9 - used)
        self.clients = [socket.create_connection((host, int(port))) for _ in range(count)]
        return [("PulseFileDescriptorsLow", "pulse-node")]

    def damage(self):
        """The disk gives other bytes of a block than were written."""
        blocks = self.damaged.data / "kernel/blocks/blk00000.dat"
        with open(blocks, "r+b") as file:
            data = bytearray(file.read())
            for at in range(0, len(data.rstrip(b"\0")), 64):
                data[at] ^= 0x20
            file.seek(0)
            file.write(data)
        name = self.damaged.ask("/block-height/150").decode()
        try:
            self.damaged.ask(f"/block/{name}/raw")
        except urllib.error.HTTPError as error:
            assert error.code == 503, error.code
        else:
            raise SystemExit("alerts: a damaged block was served")
        return [("PulseDataDamaged", "damaged")]

    def lose(self):
        """The metadata is damaged while the node is down."""
        self.lost.kill()
        for path in (self.lost.data / "meta").iterdir():
            if path.is_file():
                data = bytes(255 - byte for byte in path.read_bytes())
                path.write_bytes(data[: len(data) // 2])
        self.lost.start()
        return [("PulseMetadataRecovered", "lost")]

    def occupy(self):
        """A client takes the only place for queries and does not read the answer; others
        wait for it."""
        scripts = {}
        for height in range(120, 160):
            block = self.busy.ask(f"/block-height/{height}").decode()
            for tx in json.loads(self.busy.ask(f"/block/{block}/txs")):
                for out in tx["vout"]:
                    script = bytes.fromhex(out["scriptpubkey"])
                    scripts[script] = scripts.get(script, 0) + 1
        often = sorted(scripts, key=scripts.get, reverse=True)[:1000]
        body = json.dumps([hashlib.sha256(script).hexdigest() for script in often]).encode()
        host, port = self.busy.listens("http").rsplit(":", 1)
        head = f"POST /bulk/scripthashes/txs HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"

        def hold():
            while True:
                client = socket.socket()
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect((host, int(port)))
                client.sendall(head.encode() + body)
                # Whoever is refused tries again; who has the place keeps it.
                if b" 200" in client.recv(12):
                    time.sleep(25)
                client.close()

        def wait(first):
            # Not all at the same moment.
            time.sleep(first)
            while True:
                try:
                    self.busy.ask("/blocks", timeout=60)
                except OSError:
                    pass

        for _ in range(4):
            self.in_background(hold)
        for number in range(24):
            self.in_background(lambda first=number / 6: wait(first))
        return [("PulseOverloaded", "busy"), ("PulseSlow", "busy")]

    def cut(self):
        """The way to the network is gone."""
        for peer in self.cut_off_peers:
            peer.close()
        return [("PulseNoPeers", "cut-off")]

    def stall(self):
        """Peers have headers and deliver no blocks."""
        for peer in self.stalling:
            peer.show(self.tip + 20, blocks=1)
        return [("PulseSyncStalled", "stalled"), ("PulseIndexLagging", "stalled")]

    def fork(self):
        """The network goes over to another branch."""
        for peer in self.forking:
            peer.switch(self.blocks, 160)
        return [("PulseDeepReorg", "reorganised")]

    def hide(self):
        """The peers of one of two nodes hide the newest blocks."""
        for peer in self.left:
            peer.show(self.tip + 10)
        return [("PulseNodesDisagree", "disagreeing")]

    def expire(self):
        """Nobody has renewed the certificate."""
        self.certificate(1)
        return [("PulseCertificateExpiring", "expiring")]

    def quieten(self):
        """One peer, and no block for long."""
        self.quiet.start()
        return [("PulseFewPeers", "quiet"), ("PulseNoNewBlock", "quiet")]

    def isolate(self):
        """A node that has no peer since it was started."""
        self.lonely.start()
        return [("PulseNoNodeReady", "lonely"), ("PulseNodeNotReady", "lonely")]

    def fill(self):
        """The disk gets full: first slowly, then to the end."""

        def work():
            free = shutil.disk_usage(self.disk).free
            with open(self.disk / "log", "wb") as file:
                # As much as is full within "a week", long before it is.
                for _ in range(90):
                    file.write(bytes(free // 400))
                    file.flush()
                    os.fsync(file.fileno())
                    if self.prometheus.fires("DiskFillingUp", "machine", str(self.disk)):
                        break
                    time.sleep(1)
                size = int(shutil.disk_usage(self.disk).free * 0.97)
                file.write(bytes(size))

        self.in_background(work)
        place = str(self.disk)
        return [("DiskFillingUp", "machine", place), ("DiskAlmostFull", "machine", place)]

    def starve(self):
        """The machine's memory is used up; told by a file in the place of /proc/meminfo."""
        self.memory(3)
        return [("MemoryLow", "machine")]

    def hang(self):
        """The disk of the index does not answer any more, while the fleet goes on."""
        thaw = ["fsfreeze", "--unfreeze", self.hung]
        self.scene.release.append(lambda: subprocess.run(thaw, check=False))
        subprocess.run(["fsfreeze", "--freeze", self.hung], check=True)
        self.tip += 10
        for peer in self.growing:
            peer.show(self.tip)
        return [("PulseFleetLagging", "lagging")]

    def misbehave(self):
        """A sibling follows the rules of another signet."""
        for one in self.strange:
            one.start()
        return [("PulseFleetPunished", "strange")]

    def desert(self):
        """A node of the fleet that finds no other."""
        self.alone.start()
        return [("PulseFleetAlone", "alone")]

    def believe(self):
        """What a sibling's state could be compared with was lost before it was."""
        trust = self.believing.data / "trust.json"
        self.believing.start()
        wait_for("the own state", lambda: trust.exists() and '"validated"' in trust.read_text())
        self.believing.process.terminate()
        self.believing.process.wait()
        trust.write_text(trust.read_text().replace('"validated"', '"sibling"'))
        self.believing.start()
        return [("PulseTrustUnproven", "believing")]

    def deceive(self):
        """A sibling's snapshot lacks a coin."""
        self.deceived.start()
        return [("PulseTrustRefuted", "deceived")]

    def all(self):
        """In this order."""
        return [
            self.believe, self.deceive, self.isolate, self.quieten, self.restarts, self.killed,
            self.crowd, self.damage, self.lose, self.cut, self.stall, self.fork, self.hide,
            self.expire, self.starve, self.fill, self.misbehave, self.desert, self.hang, self.occupy,
        ]  # fmt: skip


def main():
    wanted = set(sys.argv[1:])
    alerts = re.findall(r"- alert: (\S+)", (MONITORING / "rules/pulse-node.yml").read_text())
    scene = Scene()
    caused = set()
    try:
        causes = Causes(scene)
        prometheus = Prometheus(scene)
        causes.prepare(prometheus)
        prometheus.watch(causes.calm, causes.machines)
        wait_for(
            "all targets are scraped",
            lambda: len(prometheus.query("up == 1")) == len(causes.calm) + len(causes.machines),
        )
        until = time.monotonic() + CALM
        ours = {str(causes.disk), None}
        while time.monotonic() < until:
            early = [one for one in prometheus.firing() if one.get("mountpoint") in ours]
            if early:
                raise SystemExit(f"alerts: fires without a cause: {early}")
            time.sleep(0.5)
        print(f"alerts: {len(causes.calm)} nodes, and nothing fires", flush=True)
        causes.in_background(prometheus.look)
        later = [
            causes.quiet, causes.lonely, causes.alone, *causes.strange, causes.believing,
            causes.deceived,
        ]  # fmt: skip
        prometheus.watch([*causes.calm, *later], causes.machines)
        expected = []
        for cause in causes.all():
            story = " ".join((cause.__doc__ or cause.__name__).split())
            fires = cause()
            expected += [(story, *one) for one in fires]
        pending = [one for one in expected if not wanted or one[1] in wanted]
        deadline = time.monotonic() + PATIENCE
        while pending and time.monotonic() < deadline:
            time.sleep(0.5)
            for one in list(pending):
                story, name, *where = one
                if prometheus.fires(name, *where):
                    print(f"alerts: {name} fires: {story}", flush=True)
                    pending.remove(one)
        if pending:
            raise SystemExit(f"alerts: these do not fire: {pending}")
        caused = {one[1] for one in expected}
    except BaseException:
        scene.show_logs()
        raise
    finally:
        scene.close()
    for name, reason in IMPOSSIBLE.items():
        print(f"alerts: {name} was not caused: {reason}")
    missing = set(alerts) - caused - set(IMPOSSIBLE)
    unknown = (caused | set(IMPOSSIBLE)) - set(alerts)
    if missing or unknown:
        raise SystemExit(f"alerts: without a cause: {missing}; no such alert: {unknown}")
    print(f"alerts: {len(caused)} of {len(alerts)} alerts were made to fire")


main()

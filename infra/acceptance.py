#!/usr/bin/env python3
"""The acceptance run of the self-hosted plan (infra/docs/topologies.md, B): against a node that
serves, through whatever stands before it.

    acceptance.py URL [--reference URL] [--secs 60] [--without-push]

- Push is switched on, unless `--without-push` says otherwise.
- Every route of the node's own /openapi.json is asked, with blocks, transactions and addresses of
  its chain, and answers as that document says. Routes that this does not know fail it.
- A wallet of 30 addresses: what each has is what its transactions and unspent outputs say, asked
  one by one and all at once.
- 100 requests a second, sent by the clock and not by the answers, of what wallets and explorers ask:
  none fails, and 95 of 100 are answered within 500 ms.
- The node is within 5 blocks of the reference, another Esplora, where one is given.

The numbers stand in infra/environments.json. Uptime is an alarm's to watch, not a program's.
"""

import argparse
import base64
import hashlib
import http.client
import json
import queue
import random
import sys
import threading
import time
import urllib.parse
from pathlib import Path

WANTED = json.loads((Path(__file__).parent / "environments.json").read_text())["self_hosted"]["acceptance"]
# The operator's, which what stands before a node keeps inside.
INSIDE = {"/metrics", "/stats"}
# Routes whose question may rightly be answered with "no": what is asked for is confirmed already, or
# the node has it switched off.
MAY_REFUSE = {
    "/tx": {400}, "/broadcast": {400}, "/tx/{txid}/cpfp": {404}, "/tx/{txid}/replacement": {404},
    "/tx/{txid}/removed": {404}, "/address-prefix/{prefix}": {400}, "/block-template": {403},
}
# Routes that open a stream, with what its beginning must hold.
STREAMS = {"/events": b"event: hello", "/ws": b'"type":"hello"'}
# The generator's key, which no network calls its own.
DESCRIPTOR = "wpkh(0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798)"
problems = []


class Client:
    """One connection, made anew when it was closed."""

    def __init__(self, url):
        self.base = urllib.parse.urlsplit(url)
        self.connection = None

    def connect(self):
        kind = http.client.HTTPSConnection if self.base.scheme == "https" else http.client.HTTPConnection
        return kind(self.base.netloc, timeout=30)

    def path(self, path):
        return self.base.path.rstrip("/") + path

    def ask(self, method, path, body=None):
        """(status, body) of an answer; a connection that the other side has closed is tried again."""
        headers = {"content-type": "application/json"} if body is not None else {}
        for attempt in range(2):
            fresh = self.connection is None
            if fresh:
                self.connection = self.connect()
            try:
                self.connection.request(method, self.path(path), body, headers)
                answer = self.connection.getresponse()
                return answer.status, answer.read()
            except (http.client.HTTPException, OSError):
                self.connection.close()
                self.connection = None
                if fresh or attempt:
                    raise
        raise AssertionError("unreachable: the second attempt returns or raises")

    def json(self, path, body=None):
        status, answer = self.ask("GET" if body is None else "POST", path, None if body is None else json.dumps(body))
        if status != 200:
            raise SystemExit(f"acceptance: {path}: {status} {answer[:200]!r}")
        return json.loads(answer)


def sample(client, addresses):
    """Blocks, transactions and addresses of the newest part of the chain."""
    height = int(client.json("/blocks/tip/height"))
    found, txs, blocks = {}, [], []
    while height >= 0 and len(found) < addresses:
        status, block = client.ask("GET", f"/block-height/{height}")
        blocks.append(block.decode())
        for tx in client.json(f"/block/{blocks[-1]}/txs"):
            txs.append(tx)
            for output in tx["vout"]:
                if "scriptpubkey_address" in output:
                    found.setdefault(output["scriptpubkey_address"], output["scriptpubkey"])
        height -= 1
    if len(found) < addresses:
        raise SystemExit(f"acceptance: the chain has {len(found)} addresses, of {addresses} that are wanted")
    return blocks, txs, dict(sorted(found.items())[:addresses])


def scripthash(script):
    return hashlib.sha256(bytes.fromhex(script)).hexdigest()


def filled(route, method, world):
    """The questions' path and body for a route; None if this program does not know it."""
    blocks, txs, wallet = world
    address, script = next(iter(wallet.items()))
    tx = txs[-1]
    of_address = [one for one in txs if any(out.get("scriptpubkey_address") == address for out in one["vout"])][0]
    hashed = scripthash(script)
    values = {
        "prefix": address[:8], "address": address, "height": "1", "index": "0", "start_index": "0",
        "start_height": "1", "txid": tx["txid"], "vout": "0", "last_seen_txid": of_address["txid"],
        "last_txid": of_address["txid"], "hash": blocks[-1] if route.startswith("/block/") else hashed,
    }
    path = route
    for name in [part[1:-1] for part in route.split("/") if part.startswith("{")]:
        if name not in values:
            return None
        path = path.replace(f"{{{name}}}", values[name])
    hashes = [scripthash(one) for one in wallet.values()]
    bodies = {
        "/addresses": list(wallet), "/scripthashes": hashes, "/bulk/addresses": list(wallet),
        "/bulk/scripthashes": hashes, "/bulk/txs": [one["txid"] for one in txs[:10]],
        "/descriptors": {"descriptors": [DESCRIPTOR]},
    }
    if method == "get":
        more = {"/txs/outspends": f"?txids={tx['txid']}", "/broadcast": f"?tx={world_hex(world)}"}
        return path + more.get(route, ""), None
    if route == "/tx":
        return path, world_hex(world)
    if route in ("/txs/test", "/txs/package"):
        return path, json.dumps([world_hex(world)])
    for start, body in bodies.items():
        if route == start or route.startswith(start + "/"):
            return path, json.dumps(body)
    return None


def world_hex(world):
    return world[1][0]["hex"]


def check_routes(client, world, with_push):
    document = client.json("/openapi.json")
    asked = 0
    for route, methods in document["paths"].items():
        for method, described in methods.items():
            if route in INSIDE:
                continue
            if route in STREAMS:
                check_stream(client, route, with_push)
                asked += 1
                continue
            question = filled(route, method, world)
            if question is None:
                problems.append(f"{method} {route}: not known how to ask")
                continue
            path, body = question
            status, answer = client.ask(method.upper(), path, body)
            asked += 1
            if str(status) not in described["responses"]:
                problems.append(f"{method} {path}: {status}, which /openapi.json does not name")
            elif status not in {200} | MAY_REFUSE.get(route, set()):
                problems.append(f"{method} {path}: {status} {answer[:100]!r}")
            elif status == 200 and "application/json" in described["responses"]["200"].get("content", {}):
                json.loads(answer)
    print(f"acceptance: {asked} routes asked")


def check_stream(client, route, with_push):
    """Opens a stream and reads its beginning; 404 only where the node has them switched off."""
    headers = {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(random.randbytes(16)).decode(),
    } if route == "/ws" else {}
    connection = client.connect()
    try:
        connection.request("GET", client.path(route + "?channel=tips"), headers=headers)
        with connection.getresponse() as answer:
            if answer.status == 404 and not with_push:
                return
            # To this library an answer of 101 has no body.
            stream = answer.fp if answer.status == 101 else answer
            beginning = b""
            while STREAMS[route] not in beginning and (more := stream.read1(4096)):
                beginning += more
            if answer.status not in (101, 200) or STREAMS[route] not in beginning:
                problems.append(f"get {route}: {answer.status} {beginning[:100]!r}")
    except (http.client.HTTPException, OSError) as failed:
        problems.append(f"get {route}: {failed!r}")
    finally:
        connection.close()


def check_wallet(client, wallet):
    """Each address by itself, and all at once; unconfirmed parts may change meanwhile."""
    at_once = client.json("/bulk/addresses/stats", list(wallet))
    for address, together in zip(wallet, at_once):
        if address != together.get("address"):
            problems.append(f"wallet: {together.get('address')} is told in the place of {address}")
        for _ in range(3):
            height = client.json("/blocks/tip/height")
            stats = client.json(f"/address/{address}")["chain_stats"]
            unspent = client.json(f"/address/{address}/utxo")
            txids, page = [], client.json(f"/address/{address}/txs/chain")
            while page:
                txids += [tx["txid"] for tx in page]
                page = client.json(f"/address/{address}/txs/chain/{txids[-1]}")
            if client.json("/blocks/tip/height") == height:
                break
        confirmed = [one for one in unspent if one["status"]["confirmed"]]
        if len(set(txids)) != len(txids) or len(txids) != stats["tx_count"]:
            problems.append(f"wallet: {address} has {len(txids)} transactions, of {stats['tx_count']}")
        balance = stats["funded_txo_sum"] - stats["spent_txo_sum"]
        spent_now = client.json(f"/address/{address}")["mempool_stats"]["spent_txo_sum"]
        held = sum(one["value"] for one in confirmed)
        # What the mempool spends is no longer unspent.
        if not balance - spent_now <= held <= balance:
            problems.append(f"wallet: {address} has {held} unspent, but a balance of {balance} less {spent_now}")
    print(f"acceptance: a wallet of {len(wallet)} addresses", flush=True)


def check_load(url, world, rate, secs):
    blocks, txs, wallet = world
    paths = ["/blocks/tip/height", "/blocks/tip/hash", "/fee-estimates", "/mempool", "/blocks"]
    kinds = [
        lambda: random.choice(paths),
        lambda: f"/address/{random.choice(list(wallet))}",
        lambda: f"/address/{random.choice(list(wallet))}/txs",
        lambda: f"/address/{random.choice(list(wallet))}/utxo",
        lambda: f"/tx/{random.choice(txs)['txid']}",
        lambda: f"/tx/{random.choice(txs)['txid']}/merkle-proof",
        lambda: f"/block/{random.choice(blocks)}",
        lambda: f"/block/{random.choice(blocks)}/txs",
    ]
    due, done, failed = queue.Queue(), [], []

    def work():
        client = Client(url)
        while True:
            one = due.get()
            if one is None:
                return
            # From when it should have been sent: who waits for a free connection waits, too.
            at, path = one
            try:
                status, _ = client.ask("GET", path)
                if status != 200:
                    failed.append(f"{path}: {status}")
            except (http.client.HTTPException, OSError) as error:
                failed.append(f"{path}: {error!r}")
            done.append(time.monotonic() - at)

    workers = [threading.Thread(target=work) for _ in range(50)]
    for worker in workers:
        worker.start()
    start, count = time.monotonic(), int(rate * secs)
    for number in range(count):
        at = start + number / rate
        time.sleep(max(0, at - time.monotonic()))
        due.put((at, random.choice(kinds)()))
    for _ in workers:
        due.put(None)
    for worker in workers:
        worker.join()
    took = time.monotonic() - start
    p95 = sorted(done)[int(len(done) * 0.95)] * 1000
    if failed:
        problems.append(f"load: {len(failed)} of {count} requests failed: {failed[:3]}")
    if p95 > WANTED["p95_ms"]:
        problems.append(f"load: 95 of 100 take up to {p95:.0f} ms, not {WANTED['p95_ms']}")
    if count / took < 0.95 * rate:
        problems.append(f"load: {count / took:.0f} requests a second, not {rate}")
    print(f"acceptance: {count} requests, {count / took:.0f} a second, 95 of 100 within {p95:.1f} ms")


def check_lag(client, reference):
    ours, theirs = client.json("/blocks/tip/height"), Client(reference).json("/blocks/tip/height")
    if theirs - ours > WANTED["lag_blocks"]:
        problems.append(f"lag: at block {ours}, the reference at {theirs}")
    print(f"acceptance: at block {ours}, the reference at {theirs}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--reference")
    parser.add_argument("--without-push", action="store_true")
    parser.add_argument("--secs", type=float, default=60)
    options = parser.parse_args()
    client = Client(options.url)
    world = sample(client, WANTED["addresses"])
    world[1][0]["hex"] = client.ask("GET", f"/tx/{world[1][0]['txid']}/hex")[1].decode()
    check_routes(client, world, not options.without_push)
    check_wallet(client, world[2])
    check_load(options.url, world, WANTED["requests_per_sec"], options.secs)
    if options.reference:
        check_lag(client, options.reference)
    for problem in problems:
        print(f"acceptance: {problem}", file=sys.stderr)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()

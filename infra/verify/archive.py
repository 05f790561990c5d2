#!/usr/bin/env python3
"""DuckDB, which has nothing in common with us, reads the archive of a live node and says the
same as the node's API.

    NODE_BINARY=target/release/pulse-node archive.py
"""

import json
import subprocess

import duckdb
from bitcoin_peer import Peer
from scene import NODE, Node, Scene


def expect(what, found, wanted):
    if found != wanted:
        raise SystemExit(f"archive: {what} is {found}, not {wanted}")


def main():
    scene = Scene()
    try:
        blocks = scene.chain("chain", 320, 1)
        node = Node(scene, "node", [Peer(blocks)]).start().synced_to(320)
        folder = scene.work / "archive"
        command = [NODE, "archive", str(folder), "--blocks-per-file", "100"]
        command += ["--network", "regtest", "--data-dir", str(node.data)]
        subprocess.run(command, check=True)

        def query(sql):
            return duckdb.sql(sql.replace("DIR", str(folder))).fetchall()

        expect("the number of blocks", query("FROM 'DIR/blocks/*.parquet' SELECT count(*)"), [(200,)])
        chained = query(
            "SELECT count(*) FROM 'DIR/blocks/*.parquet' one JOIN 'DIR/blocks/*.parquet' two"
            " ON one.hash = two.previous_hash AND one.height + 1 = two.height"
        )
        expect("blocks on blocks", chained, [(199,)])
        rows = query(
            "FROM 'DIR/blocks/*.parquet' SELECT height, hash, epoch_ms(time) // 1000, size, weight,"
            " tx_count ORDER BY height"
        )
        for height, name, time, size, weight, count in rows:
            told = json.loads(node.ask(f"/block/{name}"))
            wanted = [told[key] for key in ("height", "timestamp", "size", "weight", "tx_count")]
            expect(f"block {height}", [height, time, size, weight, count], wanted)
        last = rows[-1][1]
        for tx in json.loads(node.ask(f"/block/{last}/txs"))[:25]:
            found = query(
                "FROM 'DIR/transactions/*.parquet' SELECT fee, size, weight, output_value"
                f" WHERE txid = '{tx['txid']}'"
            )
            coinbase = tx["vin"][0]["is_coinbase"]
            paid = sum(out["value"] for out in tx["vout"])
            wanted = (None if coinbase else tx["fee"], tx["size"], tx["weight"], paid)
            expect(f"transaction {tx['txid']}", found, [wanted])
        # What was made and not spent in the archive is what its blocks paid out, fees included.
        balances = query("FROM 'DIR/address_events/*.parquet' SELECT sum(delta), count(DISTINCT txid)")
        made = query(
            "FROM 'DIR/transactions/*.parquet' SELECT"
            " sum(output_value) - sum(coalesce(input_value, 0)), count(DISTINCT txid)"
        )
        expect("the sum of all events", balances, made)
        busiest = query(
            "FROM 'DIR/address_events/*.parquet' SELECT address, count(DISTINCT txid)"
            " WHERE address IS NOT NULL GROUP BY address ORDER BY 2 DESC, 1 LIMIT 20"
        )
        for address, count in busiest:
            history = json.loads(node.ask(f"/address/{address}"))["chain_stats"]["tx_count"]
            if not count <= history:
                raise SystemExit(f"archive: {address} has {count} of {history} transactions")
        print(f"archive: {len(rows)} blocks read by DuckDB equal the API")
    except BaseException:
        scene.show_logs()
        raise
    finally:
        scene.close()


main()

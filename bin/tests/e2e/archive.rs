//! The archive, read back and compared with golden data, with the blocks, and with the API.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::Path,
};

use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::{Field, Row},
};
use pulse_primitives::bitcoin::{Block, Network};
use pulse_testkit::{ChainData, Exit, Golden, ScriptedPeer};
use serde_json::Value;

use super::common::{DEADLINE, options, served, start};

/// A row by the names of its columns.
type Cells = BTreeMap<String, Field>;

fn rows(dir: &Path, table: &str) -> Vec<Cells> {
    let mut names: Vec<_> = fs::read_dir(dir.join(table))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    let cells = |row: Row| row.into_columns().into_iter().collect();
    names
        .iter()
        .flat_map(|path| {
            let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
            assert!(reader.metadata().file_metadata().num_rows() > 0);
            let rows: Vec<Row> = reader.into_iter().map(Result::unwrap).collect();
            rows
        })
        .map(cells)
        .collect()
}

fn text<'a>(row: &'a Cells, column: &str) -> &'a str {
    match &row[column] {
        Field::Str(text) => text,
        other => panic!("{column} is {other:?}"),
    }
}

fn number(row: &Cells, column: &str) -> i64 {
    match &row[column] {
        Field::Int(number) => (*number).into(),
        Field::Long(number) | Field::TimestampMillis(number) => *number,
        other => panic!("{column} is {other:?}"),
    }
}

fn archive(data_dir: &Path, dir: &Path, more: &[&str]) -> Exit {
    let exit = options("mainnet")
        .data_dir(data_dir)
        .args(["archive", dir.to_str().unwrap()])
        .args(more.iter().copied())
        .run_to_exit(DEADLINE);
    assert!(exit.status.success(), "{}", exit.stderr);
    exit
}

fn assert_blocks(dir: &Path, blocks: &[Block]) {
    let rows = rows(dir, "blocks");
    assert_eq!(rows.len(), blocks.len());
    for (height, (row, block)) in rows.iter().zip(blocks).enumerate() {
        assert_eq!(number(row, "height"), i64::try_from(height).unwrap());
        assert_eq!(text(row, "hash"), block.block_hash().to_string());
        let header = &block.header;
        assert_eq!(
            text(row, "previous_hash"),
            header.prev_blockhash.to_string()
        );
        assert_eq!(text(row, "merkle_root"), header.merkle_root.to_string());
        assert_eq!(number(row, "time"), i64::from(header.time) * 1000);
        assert_eq!(number(row, "nonce"), i64::from(header.nonce));
        assert_eq!(number(row, "bits"), i64::from(header.bits.to_consensus()));
        let size = i64::try_from(block.total_size()).unwrap();
        assert_eq!(number(row, "size"), size);
        assert_eq!(
            number(row, "tx_count"),
            i64::try_from(block.txdata.len()).unwrap()
        );
    }
}

/// Scripts whose whole history is archived have the golden history and the golden sums.
fn assert_golden(dir: &Path, golden: &Golden, last: u32) -> usize {
    let mut scripts = BTreeMap::<String, Vec<Cells>>::new();
    for row in rows(dir, "address_events") {
        let script = text(&row, "scripthash").to_owned();
        scripts.entry(script).or_default().push(row);
    }
    let mut compared = 0;
    for golden in &golden.scripts {
        if golden.history.iter().any(|(height, ..)| *height > last) {
            continue;
        }
        compared += 1;
        let events = &scripts[&golden.scripthash];
        let history: BTreeSet<(i64, i64, String)> = events
            .iter()
            .map(|row| {
                (
                    number(row, "height"),
                    number(row, "position"),
                    text(row, "txid").to_owned(),
                )
            })
            .collect();
        let expected: BTreeSet<_> = golden
            .history
            .iter()
            .map(|(height, position, txid)| {
                ((*height).into(), (*position).into(), txid.to_string())
            })
            .collect();
        assert_eq!(history, expected, "{}", golden.scripthash);
        for (kind, sign, count, sum) in [
            (
                "received",
                1,
                golden.funded_txo_count,
                golden.funded_txo_sum,
            ),
            ("spent", -1, golden.spent_txo_count, golden.spent_txo_sum),
        ] {
            let of_kind = events.iter().filter(|row| text(row, "kind") == kind);
            let deltas: Vec<i64> = of_kind.map(|row| sign * number(row, "delta")).collect();
            assert_eq!(
                deltas.len() as u64,
                count,
                "{kind} of {}",
                golden.scripthash
            );
            let total = u64::try_from(deltas.iter().sum::<i64>()).unwrap();
            assert_eq!(total, sum, "{kind} of {}", golden.scripthash);
        }
    }
    compared
}

#[test]
fn the_archive_of_a_running_node_equals_golden_data_and_the_api() {
    let Some(data) = ChainData::locate() else {
        return;
    };
    let blocks = data.mainnet();
    let peer = ScriptedPeer::honest(served(Network::Bitcoin, &blocks));
    let mut node = start("mainnet", &[peer.addr()]);
    node.wait_synced_to(4312, DEADLINE);
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("archive");

    // A part, and then the rest.
    let first = archive(node.data_dir(), &dir, &["--to", "1999"]);
    assert!(
        first.stdout.contains("2 ranges written, 0 kept"),
        "{}",
        first.stdout
    );
    let second = archive(node.data_dir(), &dir, &[]);
    assert!(
        second.stdout.contains("2 ranges written, 2 kept"),
        "{}",
        second.stdout
    );
    assert!(
        second.stdout.contains("next height 4000"),
        "{}",
        second.stdout
    );
    assert_blocks(&dir, &blocks[..4000]);
    assert!(assert_golden(&dir, &data.golden("mainnet-0-4312"), 3999) > 3000);

    let mut spending = 0;
    for row in rows(&dir, "transactions") {
        if row["is_coinbase"] == Field::Bool(true) {
            assert_eq!(row["fee"], Field::Null);
            continue;
        }
        spending += 1;
        let tx: Value = node.get_json(&format!("/tx/{}", text(&row, "txid")));
        for (column, key) in [
            ("fee", "fee"),
            ("size", "size"),
            ("weight", "weight"),
            ("locktime", "locktime"),
            ("version", "version"),
        ] {
            assert_eq!(tx[key], number(&row, column), "{column} of {row:?}");
        }
        assert_eq!(tx["status"]["block_height"], number(&row, "height"));
        let sum = |values: Vec<&Value>| {
            values
                .iter()
                .map(|value| value.as_i64().unwrap())
                .sum::<i64>()
        };
        let vout = tx["vout"]
            .as_array()
            .unwrap()
            .iter()
            .map(|out| &out["value"]);
        assert_eq!(number(&row, "output_value"), sum(vout.collect()));
        let vin = tx["vin"].as_array().unwrap().iter();
        let vin = vin.map(|input| &input["prevout"]["value"]);
        assert_eq!(number(&row, "input_value"), sum(vin.collect()));
    }
    assert!(spending > 40, "{spending}");

    // Without a node, the same bytes; and what is damaged is written again.
    assert!(node.terminate(DEADLINE).status.success());
    let again = folder.path().join("again");
    archive(node.data_dir(), &again, &["--from", "500", "--to", "3000"]);
    let name = "transactions/00001000-00001999.parquet";
    let bytes = fs::read(dir.join(name)).unwrap();
    assert_eq!(fs::read(again.join(name)).unwrap(), bytes);
    let files = fs::read_dir(again.join("blocks")).unwrap();
    assert_eq!(files.count(), 2, "1000 to 2999");
    fs::write(again.join(name), &bytes[..bytes.len() / 2]).unwrap();
    let third = archive(node.data_dir(), &again, &["--from", "500", "--to", "3000"]);
    assert!(
        third.stdout.contains("1 ranges written, 1 kept"),
        "{}",
        third.stdout
    );
    assert_eq!(fs::read(again.join(name)).unwrap(), bytes);
}

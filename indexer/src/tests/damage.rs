//! Files of the index damaged at random places: under an open index, and before it is
//! opened. Whatever is damaged, an answer is right or there is none.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use pulse_primitives::{
    Height,
    bitcoin::{
        BlockHash, OutPoint, Txid,
        hashes::{Hash, sha256},
    },
    ports::BlockSource,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    Fixture,
    crash::Killer,
    filters::with_filters,
    memchain::{MemChain, SCRIPTS, mine, script},
    params, scratch_dir,
};
use crate::{Index, query::QueryError};

/// Damages of each test, unless `PULSE_INDEX_DAMAGES` says otherwise.
const DAMAGES: u64 = 100;

fn cases() -> u64 {
    let cases = std::env::var("PULSE_INDEX_DAMAGES");
    cases.map_or(DAMAGES, |cases| cases.parse().unwrap())
}

/// What is asked.
struct Questions {
    heights: Height,
    txids: Vec<Txid>,
}

impl Questions {
    fn about(chain: &MemChain) -> Self {
        let blocks = chain.blocks();
        let txs = blocks.iter().flat_map(|(block, _)| &block.txdata);
        Self {
            heights: blocks.len() as Height,
            txids: txs.map(|tx| tx.compute_txid()).collect(),
        }
    }

    /// Every answer as text, `None` where there is none because of an error.
    fn ask(&self, fixture: &Fixture) -> Vec<Option<String>> {
        let mut answers = Vec::new();
        let Ok(view) = fixture.query.view() else {
            return answers;
        };
        let answers = &mut answers;
        for height in 0..=self.heights {
            let info = view.block_at(height);
            if let Ok(Some(info)) = &info {
                put(answers, view.block_raw(info));
                put(answers, view.block_txids(info).map(|ids| ids.to_vec()));
                put(answers, view.block_txs(info, 0, 25));
            } else {
                answers.extend([None, None, None]);
            }
            put(answers, info);
        }
        for txid in &self.txids {
            put(answers, view.tx(txid));
            put(answers, view.tx_block(txid));
            put(answers, view.spenders(txid));
            put(answers, view.merkle_proof(txid));
            put(answers, view.has_unspent(txid));
            put(answers, view.unspent(&[OutPoint::new(*txid, 0)]));
        }
        for index in 0..SCRIPTS {
            let hash = sha256::Hash::hash(script(index).as_bytes()).to_byte_array();
            put(answers, view.script_stats(&hash));
            put(answers, view.script_txs(&hash, None, 100));
            put(answers, view.script_utxos(&hash, 1000));
        }
        std::mem::take(answers)
    }
}

fn put<T: std::fmt::Debug>(answers: &mut Vec<Option<String>>, answer: Result<T, QueryError>) {
    answers.push(match answer {
        Ok(answer) => Some(format!("{answer:?}")),
        Err(QueryError::Store(_) | QueryError::PositionRenewing { .. }) => None,
        Err(err) => panic!("{err}"),
    });
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = scratch_dir();
    for name in files(from) {
        fs::copy(from.join(&name), to.path().join(&name)).unwrap();
    }
    to
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("LO"))
        .map(PathBuf::from)
        .collect::<Vec<_>>();
    names.sort();
    names
}

/// Changes a file in its place, as a disk does. Says how.
fn damage(dir: &Path, rng: &mut StdRng) -> String {
    let names = files(dir);
    let name = &names[rng.gen_range(0..names.len())];
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(dir.join(name))
        .unwrap();
    let len = file.metadata().unwrap().len();
    if len == 0 {
        return format!("{} is empty", name.display());
    }
    let at = rng.gen_range(0..len);
    let what = match rng.gen_range(0..4) {
        0 => {
            file.set_len(at).unwrap();
            "cut"
        }
        1 => {
            let zeros = vec![0; rng.gen_range(1..=(len - at).min(4096)) as usize];
            file.write_all_at(&zeros, at).unwrap();
            "zeroed"
        }
        _ => {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            byte[0] ^= 1 << rng.gen_range(0..8);
            file.write_all_at(&byte, at).unwrap();
            "flipped"
        }
    };
    format!("{} {what} at {at}", name.display())
}

/// A chain, and its index in table files.
fn indexed() -> (Arc<MemChain>, tempfile::TempDir) {
    let chain = Arc::new(MemChain::new(&params()));
    mine(&chain, 30, 20, 3);
    let dir = scratch_dir();
    let mut fixture = open(dir.path(), &chain).unwrap();
    // What a bulk load has left is merged, after which files stay as they are.
    let deadline = Instant::now() + Duration::from_secs(60);
    fixture.catch_up().unwrap();
    while fixture.index.shared.store.is_unsettled().unwrap() {
        assert!(Instant::now() < deadline);
        fixture.catch_up().unwrap();
        std::thread::yield_now();
    }
    fixture.index.flush().unwrap();
    drop(fixture);
    (chain, dir)
}

fn open(dir: &Path, chain: &Arc<MemChain>) -> Result<Fixture, crate::OpenError> {
    let index = Index::open(dir, &with_filters(), &params())?;
    Ok(Fixture::of(index, Arc::clone(chain)))
}

/// No answer is another one than the right one. Whether any is missing.
fn check(found: &[Option<String>], right: &[Option<String>], context: &str) -> bool {
    for (found, right) in found.iter().zip(right) {
        assert!(found.is_none() || found == right, "{context}");
    }
    found.len() < right.len()
        || found
            .iter()
            .zip(right)
            .any(|(f, r)| f.is_none() && r.is_some())
}

#[test]
fn damage_under_an_open_index_is_an_error_and_never_another_answer() {
    let (chain, good) = indexed();
    let questions = Questions::about(&chain);
    let right = questions.ask(&open(good.path(), &chain).unwrap());
    assert!(right.iter().filter(|answer| answer.is_some()).count() > 500);
    let mut noticed = 0;
    for case in 0..cases() {
        let rng = &mut StdRng::seed_from_u64(case);
        let dir = copy(good.path());
        let mut fixture = open(dir.path(), &chain).unwrap();
        let context = format!("case {case}: {}", damage(dir.path(), rng));
        let before = files(dir.path());
        noticed += u32::from(check(&questions.ask(&fixture), &right, &context));
        // At its tip, and with nothing to write, the index rests.
        let rested = fixture.catch_up();
        check(&questions.ask(&fixture), &right, &context);
        let after = files(dir.path());
        assert!(before.iter().all(|name| after.contains(name)), "{context}");
        // The check of the whole index finds what a reader would meet, wherever it is.
        let source = Arc::clone(&chain) as Arc<dyn BlockSource>;
        let stop = std::sync::atomic::AtomicBool::new(false);
        let report = fixture
            .index
            .verify(&*source, &Default::default(), &stop, &mut |_| {});
        if rested.is_ok() && report.is_ok_and(|report| report.unwrap().is_clean()) {
            let found = questions.ask(&fixture);
            assert!(!check(&found, &right, &context), "{context}");
        }
    }
    assert!(noticed > 0);
}

#[test]
fn damage_before_the_start_is_refused_or_leaves_an_earlier_block() {
    let (chain, flushed) = indexed();
    // The same with half of it in the log.
    let mut fixture = open(flushed.path(), &chain).unwrap();
    for seed in 0..6 {
        mine(&chain, 1, 20, 100 + seed);
        fixture.catch_up().unwrap();
    }
    let killer = Killer::new(&fixture, flushed.path(), 0, 1);
    let (logged, _) = killer.take(&fixture).remove(0);
    drop(fixture);
    let questions = Questions::about(&chain);
    let mut right = std::collections::HashMap::<BlockHash, Vec<_>>::new();
    let (mut refused, mut earlier) = (0, 0);
    for case in 0..cases() {
        let rng = &mut StdRng::seed_from_u64(1 << 32 | case);
        let dir = copy(logged.path());
        let context = format!("case {case}: {}", damage(dir.path(), rng));
        let fixture = match open(dir.path(), &chain) {
            Ok(fixture) => fixture,
            Err(err) => {
                refused += 1;
                let chain = error_text(&err);
                assert!(
                    chain.contains("index") && !chain.contains("panic"),
                    "{context}: {chain}"
                );
                continue;
            }
        };
        let Some(tip) = *fixture.index.tip().borrow() else {
            let rows = fixture.index.row_counts().unwrap();
            let rows = rows.iter().filter(|(family, _)| **family != "meta");
            assert_eq!(rows.map(|(_, rows)| rows).sum::<u64>(), 0, "{context}");
            continue;
        };
        earlier += u32::from(tip.hash != chain.active()[chain.active().len() - 1]);
        let right = right.entry(tip.hash).or_insert_with(|| {
            let dir = scratch_dir();
            let chain = Arc::new(chain.up_to(&params(), tip.hash));
            let mut fixture = open(dir.path(), &chain).unwrap();
            fixture.catch_up().unwrap();
            questions.ask(&fixture)
        });
        check(&questions.ask(&fixture), right, &context);
    }
    assert!(refused > 0 && earlier > 0, "{refused} {earlier}");
}

fn error_text(err: &dyn std::error::Error) -> String {
    let source = err
        .source()
        .map(|source| format!(": {}", error_text(source)));
    format!("{err}{}", source.unwrap_or_default())
}

/// A block that its file does not hold any more is told of, and found again when the file
/// is as it was.
#[test]
fn a_damaged_block_has_no_answer_until_it_is_whole_again() {
    let (chain, good) = indexed();
    let mut fixture = open(good.path(), &chain).unwrap();
    fixture.catch_up().unwrap();
    let height = 7;
    let hash = chain.active()[height as usize];
    let txid = chain.blocks()[height as usize].0.txdata[0].compute_txid();
    chain.flip(hash, false);
    let renewing = |fixture: &Fixture| {
        let view = fixture.query.view().unwrap();
        matches!(
            view.tx_raw(&txid),
            Err(QueryError::PositionRenewing { height: 7 })
        )
    };
    let is_damaged = |fixture: &Fixture| fixture.index.shared.stale.is_damaged(height);
    assert!(renewing(&fixture) && !is_damaged(&fixture));
    fixture.catch_up().unwrap();
    assert!(renewing(&fixture) && is_damaged(&fixture));
    // Lost altogether.
    chain.lose(hash);
    fixture.catch_up().unwrap();
    assert!(renewing(&fixture) && is_damaged(&fixture));
    chain.find_again();
    chain.flip(hash, false);
    fixture.catch_up().unwrap();
    assert!(!renewing(&fixture) && !is_damaged(&fixture));

    // What the transactions of a block spend is read from elsewhere.
    chain.flip(hash, true);
    let txs = &chain.blocks()[height as usize].0.txdata;
    let spends = txs[txs.len() - 1].compute_txid();
    let prevouts = |fixture: &Fixture| fixture.query.view().unwrap().tx(&spends).map(drop);
    assert!(prevouts(&fixture).is_err());
    fixture.catch_up().unwrap();
    assert!(prevouts(&fixture).is_err() && is_damaged(&fixture));
    chain.flip(hash, true);
    fixture.catch_up().unwrap();
    assert!(prevouts(&fixture).is_ok() && !is_damaged(&fixture));
}

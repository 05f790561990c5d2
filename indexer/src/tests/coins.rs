//! Unspent outputs as the mempool asks for them. Which outputs are unspent is compared with
//! the naive index in every random chain.

use std::sync::Arc;

use pulse_primitives::coins::CoinSource;

use super::{
    Fixture,
    memchain::{MemChain, mine},
    params, scratch_dir,
};

#[test]
fn coins_stay_those_of_their_moment_and_the_watch_fires_after_the_commit() {
    let dir = scratch_dir();
    let chain = Arc::new(MemChain::new(&params()));
    mine(&chain, 14, 12, 31);
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    let source: &dyn CoinSource = &fixture.query.clone();
    assert!(source.coins().unwrap().is_none());
    let mut tip = source.tip();
    assert_eq!(*tip.borrow_and_update(), None);
    fixture.catch_up().unwrap();

    let view = source.coins().unwrap().unwrap();
    let coins = chain.coins();
    assert_eq!(Some(view.tip()), *tip.borrow_and_update());
    let times = |height: usize| {
        let mut times = chain.blocks()[height.saturating_sub(10)..=height]
            .iter()
            .map(|(block, _)| block.header.time)
            .collect::<Vec<_>>();
        times.sort_unstable();
        times[times.len() / 2]
    };
    for height in [0, 1, 5, 10, 11, 14] {
        assert_eq!(view.median_time_past(height as u32).unwrap(), times(height));
    }
    assert!(view.median_time_past(15).is_err());

    // Blocks that come later are not seen, not even those that replace earlier ones.
    chain.disconnect(3);
    mine(&chain, 5, 12, 32);
    fixture.catch_up().unwrap();
    for (outpoint, coin) in &coins {
        assert_eq!(view.coin(outpoint).unwrap().as_ref(), Some(coin));
        assert!(view.has_unspent(&outpoint.txid).unwrap());
    }
    drop(view);
    assert!(tip.has_changed().unwrap());
    let view = source.coins().unwrap().unwrap();
    assert_eq!(Some(view.tip()), *tip.borrow());
    let (outpoints, wanted): (Vec<_>, Vec<_>) = chain
        .coins()
        .into_iter()
        .map(|(o, coin)| (o, Some(coin)))
        .unzip();
    assert_eq!(view.coins_many(&outpoints).unwrap(), wanted);
}

//! A BDK wallet over the REST API, through a reorganisation of three blocks.

use bdk_esplora::EsploraExt;
use pulse_primitives::bitcoin::{ScriptBuf, Txid, WPubkeyHash, hashes::Hash};

use crate::e2e::electrum::Scene;

#[test]
fn a_bdk_wallet_scans_pays_and_follows_a_reorganisation_of_three_blocks() {
    let mut scene = Scene::new();
    let client = bdk_esplora::esplora_client::Builder::new(&scene.node.api_url()).build_blocking();
    let request = scene.wallet.start_full_scan();
    let update = client.full_scan(request, 20, 4).unwrap();
    scene.wallet.apply_update(update).unwrap();
    let funds = 3 * 50 * 100_000_000;
    assert_eq!(scene.wallet.balance().total().to_sat(), funds);

    let sync = |scene: &mut Scene| {
        let request = scene.wallet.start_sync_with_revealed_spks();
        let update = client.sync(request, 4).unwrap();
        scene.wallet.apply_update(update).unwrap();
        let checkpoint = scene.wallet.latest_checkpoint();
        let tip = (scene.chain.height(), scene.chain.tip_hash());
        assert_eq!((checkpoint.height(), checkpoint.hash()), tip);
    };
    let height_of = |scene: &Scene, txid: Txid| {
        let found = scene.wallet.get_tx(txid).expect("the wallet knows it");
        found.chain_position.confirmation_height_upper_bound()
    };
    let to = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([9; 20]));
    let first = scene.pay(&to, 1_000_000);
    client.broadcast(&first).unwrap();
    let second = scene.pay(&to, 2_000_000);
    client.broadcast(&second).unwrap();
    let (one, two) = (first.compute_txid(), second.compute_txid());
    sync(&mut scene);
    assert_eq!(
        (height_of(&scene, one), height_of(&scene, two)),
        (None, None)
    );
    let unconfirmed = scene.wallet.balance().total();

    scene.mine(vec![first.clone()]);
    scene.mine(vec![second.clone()]);
    scene.mine(vec![]);
    sync(&mut scene);
    assert_eq!(
        (height_of(&scene, one), height_of(&scene, two)),
        (Some(111), Some(112))
    );
    assert_eq!(scene.wallet.balance().total(), unconfirmed);

    scene.reorganise(110, 4);
    sync(&mut scene);
    assert_eq!(
        (height_of(&scene, one), height_of(&scene, two)),
        (None, None)
    );
    assert_eq!(
        scene.wallet.balance().total(),
        unconfirmed,
        "nothing is lost"
    );

    scene.mine(vec![first, second]);
    sync(&mut scene);
    assert_eq!(
        (height_of(&scene, one), height_of(&scene, two)),
        (Some(115), Some(115))
    );
    let canonical = scene.wallet.transactions().count();
    assert_eq!(canonical, 5, "three coinbases and two payments");
    assert_eq!(scene.wallet.balance().total(), unconfirmed);
}

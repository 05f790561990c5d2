//! Wallets of clients: descriptors and extended keys, one per line.

use std::hash::{DefaultHasher, Hash, Hasher};

use pulse_primitives::bitcoin::Network;
use pulse_request::{
    RequestError,
    keychain::{Budget, MOST_DESCRIPTORS, keychains},
};

const XPUB: &str = "xpub6CatWdiZiodmUeTDp8LT5or8nmbKNcuyvz7WyksVFkKB4RHwCD3XyuvPEbvqAQY3rAPshWcMLoP2fMFMKHPJ4ZeZXYVUhLv1VMrjPC7PW6V";
const KEY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

/// What reads can be derived within its budget, each script at its place, and errors repeat
/// nothing of what was sent.
pub fn run(data: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(data);
    let texts: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut hasher = DefaultHasher::new();
    match keychains(&texts, Network::Bitcoin) {
        Err(error) => {
            let told = error.to_string();
            assert!(told.len() < 100, "{told}");
            told.hash(&mut hasher);
        }
        Ok(mut keychains) => {
            assert!(texts.len() <= MOST_DESCRIPTORS);
            let mut budget = Budget {
                scripts: 60,
                keys: 400,
            };
            for keychain in &mut keychains {
                let mut asked = 0;
                let derived = keychain.derive::<RequestError>(3, &mut budget, || {
                    asked += 1;
                    Ok(())
                });
                assert!(asked <= 3 && keychain.scripts.len() <= 3);
                for script in &keychain.scripts {
                    assert!(script.script.len() <= 10_000);
                }
                (keychain.is_ranged(), keychain.branch, derived.is_ok()).hash(&mut hasher);
            }
        }
    }
    hasher.finish()
}

/// Descriptors of every kind.
pub fn seeds() -> Vec<Vec<u8>> {
    [
        XPUB.to_owned(),
        format!("wpkh([d34db33f/84h/0h/0h]{XPUB}/<0;1>/*)"),
        format!("pkh({KEY})\nsh(wpkh({KEY}))\npk({KEY})"),
        format!("wsh(sortedmulti(2,{XPUB}/0/*,{XPUB}/1/*,{KEY}))"),
        format!("tr({XPUB}/0/*,{{pk({XPUB}/1/*),and_v(v:pk({XPUB}/2/*),older(144))}})"),
        format!("wsh(andor(pk({KEY}),older(1000),multi(1,{KEY})))"),
        format!("sh(wsh(thresh(2,pk({KEY}),s:pk({XPUB}/*),sln:after(500000001))))"),
    ]
    .map(String::into_bytes)
    .to_vec()
}

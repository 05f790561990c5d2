//! Lines of Electrum clients.

use std::hash::{DefaultHasher, Hash, Hasher};

use pulse_primitives::bitcoin::Txid;
use pulse_request::rpc::{self, BadCall, Call, Message};
use serde_json::Value;

const MOST: usize = 20;

/// What is no request is told apart, every request has an answer of one line that is JSON and
/// has its id, and parameters read or are refused.
pub fn run(data: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    match rpc::parse(data, MOST) {
        Err(error) => error.to_string().hash(&mut hasher),
        Ok(Message::One(call)) => answer(call, &mut hasher),
        Ok(Message::Batch(calls)) => {
            assert!(calls.len() <= MOST);
            for call in calls {
                answer(call, &mut hasher);
            }
        }
    }
    hasher.finish()
}

fn answer(call: Result<Call, BadCall>, hasher: &mut impl Hasher) {
    let (id, text) = match call {
        Err(BadCall { id }) => {
            let text = rpc::failure(&id, -32600, "invalid request");
            (id, text)
        }
        Ok(Call { id, method, params }) => {
            let outcomes = [
                params.text(0, "scripthash").map(|_| ()),
                params.hash::<Txid>(0, "txid").map(|_| ()),
                params.number(1, "height").map(|_| ()),
                params.number_or(2, "cp_height", 0).map(|_| ()),
                params.flag(1, "verbose").map(|_| ()),
            ];
            for outcome in outcomes {
                outcome.is_ok().hash(hasher);
                if let Err(error) = outcome {
                    let told = error.to_string();
                    assert!(told.len() < 100, "{told}");
                    told.hash(hasher);
                }
            }
            let text = match method.len() % 2 {
                0 => rpc::failure(&id, 1, &method),
                _ => rpc::success(&id, &rpc::json(&method)),
            };
            (id, text)
        }
    };
    assert!(!text.contains('\n'));
    let read: Value = serde_json::from_str(&text).expect("an answer is JSON");
    // As text: a number with a fraction may differ in its last digit when it is read again.
    assert!(text.ends_with(&format!(r#""id":{id}}}"#)), "{text}");
    read.get("error").is_some().hash(hasher);
}

/// Requests, and a batch of them.
pub fn seeds() -> Vec<Vec<u8>> {
    let hash = "8b01df4e368ea28f8dc0423bcf7a4923e3a12d307c875e47a0cfbf90b5c39161";
    let one = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"blockchain.scripthash.subscribe","params":["{hash}"]}}"#
    );
    let named = format!(
        r#"{{"id":"a","method":"blockchain.transaction.get","params":{{"txid":"{hash}","verbose":true}}}}"#
    );
    [
        r#"{"id":0,"method":"server.version","params":["fuzz",["1.4","1.6"]]}"#.to_owned(),
        r#"{"id":[1,{"x":2}],"method":"blockchain.block.headers","params":[5,10,100]}"#.to_owned(),
        format!("[{one},{named},7]"),
        one,
        named,
    ]
    .map(String::into_bytes)
    .to_vec()
}

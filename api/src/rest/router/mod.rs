//! The REST routes: from a method and a path to the work that answers.
//!
//! ```text
//! path -> tables of the listener -> [`Route`] -> its parameters -> [`Work`]
//! ```
//!
//! Matching is literal ([`pulse_request::path`]).
//!
//! A route is one line in the table of its subject: method, template, how its parameters
//! are read, and the function that answers. Where two templates fit a path, the one
//! further up counts. A table belongs to the public listener, the operator's, or both.

mod block;
mod internal;
mod many;
mod mempool;
mod merged;
mod script;
mod tx;
mod work;

use std::str::FromStr;

use axum::{body::Bytes, http::Method};
use pulse_primitives::bitcoin::{BlockHash, Network, Txid};
use pulse_request::{
    RequestError,
    path::{MAX_PARAMS, Template, matched_part},
};

use super::{
    error::RestError,
    params::{self, Asked, Subject},
};
pub(super) use work::Work;

/// The routes of the public listener.
pub(super) const PUBLIC: Tables = &[
    block::ROUTES,
    tx::ROUTES,
    script::ROUTES,
    merged::ROUTES,
    mempool::ROUTES,
    many::ROUTES,
];
/// The routes that only the operator's listener has.
pub(super) const OPERATOR: Tables = &[internal::ROUTES];

/// What a listener answers, by subject.
pub(super) type Tables = &'static [&'static [Route]];

type Made = Result<Work, RestError>;

/// The methods that a route can have. HEAD is GET; axum cuts its body off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Post,
}

/// Which block an answer follows from; the first parameter of the path names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BasisKind {
    /// It is named itself, and its depth does not matter.
    Block,
    /// The same, if it is deep in the chain.
    DeepBlock,
    /// The one that confirms the transaction that is named, if it is deep in the chain.
    Tx,
}

/// The same, with the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Basis {
    Block(BlockHash),
    DeepBlock(BlockHash),
    Tx(Txid),
}

/// One endpoint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(super) verb: Verb,
    /// Its path with `:name` for parameters; names it in metrics and logs, too.
    pub(super) template: &'static str,
    /// The same, to be matched.
    pattern: Template,
    /// Whether it exists only on nodes with a mempool.
    pub(super) of_mempool: bool,
    /// What its answers follow from besides the path, once that is settled.
    basis: Option<BasisKind>,
    /// Reads the parameters.
    make: fn(&Args<'_>) -> Made,
}

/// A GET route.
const fn get(template: &'static str, make: fn(&Args<'_>) -> Made) -> Route {
    Route {
        verb: Verb::Get,
        template,
        pattern: Template::new(template),
        of_mempool: false,
        basis: None,
        make,
    }
}

/// A POST route.
const fn post(template: &'static str, make: fn(&Args<'_>) -> Made) -> Route {
    Route {
        verb: Verb::Post,
        ..get(template, make)
    }
}

impl Route {
    /// The same, but not there on a node without mempool.
    const fn of_mempool(self) -> Self {
        Self {
            of_mempool: true,
            ..self
        }
    }

    /// The same, with answers that follow from path and block ([`Cache::Settled`]).
    ///
    /// [`Cache::Settled`]: super::reply::Cache::Settled
    const fn settled_by(self, basis: BasisKind) -> Self {
        Self {
            basis: Some(basis),
            ..self
        }
    }
}

/// What a request says to its route.
pub(super) struct Args<'a> {
    params: [&'a str; MAX_PARAMS],
    network: Network,
    /// The query string, undecoded.
    pub(super) query: Option<&'a str>,
    /// What the query says on any route.
    pub(super) asked: &'a Asked,
    /// Empty unless it is a POST.
    pub(super) body: Bytes,
}

impl Args<'_> {
    /// A parameter that is ignored if it does not parse.
    fn optional<T: FromStr>(&self, index: usize) -> Option<T> {
        self.params[index].parse().ok()
    }

    fn number<N: FromStr>(&self, index: usize) -> Result<N, RequestError> {
        params::number(self.params[index])
    }

    fn block_hash(&self) -> Result<BlockHash, RequestError> {
        params::block_hash(self.params[0])
    }

    fn txid(&self) -> Result<Txid, RequestError> {
        params::txid(self.params[0])
    }

    fn address(&self) -> Result<Subject, RequestError> {
        params::address(self.params[0], self.network)
    }

    fn scripthash(&self) -> Result<Subject, RequestError> {
        params::scripthash(self.params[0])
    }
}

/// A path that belongs to a route.
pub(super) struct Found<'a> {
    pub(super) route: &'static Route,
    params: [&'a str; MAX_PARAMS],
}

impl<'a> Found<'a> {
    /// What the answer follows from, if it is settled; `None` for other routes.
    pub(super) fn basis(&self) -> Option<Basis> {
        let name = self.params[0];
        Some(match self.route.basis? {
            BasisKind::Block => Basis::Block(name.parse().ok()?),
            BasisKind::DeepBlock => Basis::DeepBlock(name.parse().ok()?),
            BasisKind::Tx => Basis::Tx(name.parse().ok()?),
        })
    }

    /// The work that answers.
    ///
    /// # Errors
    /// Which parameter is wrong.
    pub(super) fn work(
        &self,
        network: Network,
        query: Option<&'a str>,
        asked: &'a Asked,
        body: Bytes,
    ) -> Made {
        (self.route.make)(&Args {
            params: self.params,
            network,
            query,
            asked,
            body,
        })
    }
}

/// The route of `path`, `None` if there is none.
pub(super) fn find<'a>(tables: Tables, method: &Method, path: &'a str) -> Option<Found<'a>> {
    let verb = match *method {
        Method::GET | Method::HEAD => Verb::Get,
        Method::POST => Verb::Post,
        _ => return None,
    };
    let path = matched_part(path);
    let mut routes = tables.iter().copied().flatten();
    routes.find_map(|route| {
        let params = (route.verb == verb).then(|| route.pattern.params(path))??;
        Some(Found { route, params })
    })
}

#[cfg(test)]
mod tests {
    use pulse_request::path::MATCHED_SEGMENTS;

    use super::*;

    const H: &str = "1c45a447627cbd0003b94a77a48f5746dac20551805150cfb23d2b2f9b5fbc53";
    const A: &str = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";

    fn public(method: &Method, path: &str) -> Option<&'static str> {
        find(PUBLIC, method, path).map(|found| found.route.template)
    }

    fn template(path: &str) -> Option<&'static str> {
        public(&Method::GET, path)
    }

    #[test]
    fn paths_match_literally() {
        for (path, want) in [
            ("/blocks", "/blocks"),
            ("/blocks/", "/blocks/:start_height"),
            ("/blocks/abc", "/blocks/:start_height"),
            ("/blocks/tip", "/blocks/:start_height"),
            ("/block/", "/block/:hash"),
            ("/block//txs", "/block/:hash/txs"),
            ("/block/x/txs/", "/block/:hash/txs/:start_index"),
            (
                "/address/x/txs/chain/",
                "/address/:address/txs/chain/:last_seen_txid",
            ),
            (
                "/address/x/txs/chain/y/any/thing/",
                "/address/:address/txs/chain/:last_seen_txid",
            ),
            ("/tx/", "/tx/:txid"),
        ] {
            assert_eq!(template(path), Some(want), "{path}");
        }
        for path in [
            "",
            "/",
            "*",
            "/api",
            "/api/",
            "/apiblocks",
            "/explorer/",
            "//blocks",
            "/Blocks",
            "/%62locks",
            "/api/api/blocks",
            "/blocks/1/2",
            "/blocks/tip/hash/",
            &format!("/tx/{H}/"),
            &format!("/block/{H}/"),
            &format!("/block/{H}/txs/0/1"),
            &format!("/address/{A}/"),
            &format!("/address/{A}/txs/"),
            "/mempool/",
            "/fee-estimates/",
            "/mempool/txids/",
            "/broadcast/",
            "/txs/package",
            "/tx",
        ] {
            assert_eq!(template(path), None, "{path}");
        }
    }

    #[test]
    fn every_route_is_found_by_its_template_alone_and_under_api() {
        let mut seen = std::collections::HashSet::new();
        for route in PUBLIC.iter().chain(OPERATOR).copied().flatten() {
            let method = match route.verb {
                Verb::Get => Method::GET,
                Verb::Post => Method::POST,
            };
            let tables: Tables = match public(&method, route.template) {
                Some(_) => PUBLIC,
                None => OPERATOR,
            };
            for path in [route.template.to_owned(), format!("/api{}", route.template)] {
                let found = find(tables, &method, &path).expect(&path);
                assert_eq!(found.route.template, route.template);
            }
            let names = route.template.matches(':').count();
            assert!(names <= MAX_PARAMS, "{}", route.template);
            let segments = route.template.matches('/').count();
            assert!(segments <= MATCHED_SEGMENTS, "{}", route.template);
            assert!(
                seen.insert((method, route.template)),
                "{} stands twice",
                route.template
            );
        }
    }

    #[test]
    fn methods_tell_routes_apart() {
        for (method, path) in [
            (Method::POST, "/tx"),
            (Method::POST, "/api/tx"),
            (Method::POST, "/txs/package"),
            (Method::POST, "/txs/test"),
            (Method::GET, "/broadcast"),
            (Method::HEAD, "/broadcast"),
        ] {
            assert!(public(&method, path).is_some(), "{path}");
        }
        for (method, path) in [
            (Method::POST, "/broadcast"),
            (Method::POST, "/blocks"),
            (Method::POST, "/tx/"),
            (Method::PUT, "/tx"),
            (Method::GET, "/txs/test"),
        ] {
            assert_eq!(public(&method, path), None, "{path}");
        }
    }

    #[test]
    fn malformed_parameters_have_their_texts() {
        let long = format!("{H}0");
        for (path, want) in [
            (format!("/block/{}", &H[1..]), "Invalid hex string"),
            (format!("/block/{long}/status"), "Invalid hex string"),
            ("/block/".to_owned(), "Invalid hex string"),
            ("/tx/xyz".to_owned(), "Invalid hex string"),
            ("/tx/".to_owned(), "Invalid hex string"),
            (format!("/tx/{long}/outspend/0"), "Invalid hex string"),
            (format!("/tx/{H}/outspend/-1"), "Invalid number"),
            (format!("/tx/{H}/outspend/"), "Invalid number"),
            (format!("/tx/{H}/outspend/4294967296"), "Invalid number"),
            (format!("/block/{H}/txid/x"), "Invalid number"),
            ("/block-height/".to_owned(), "Invalid number"),
            ("/block-height/-1".to_owned(), "Invalid number"),
            (
                "/block-height/18446744073709551616".to_owned(),
                "Invalid number",
            ),
            ("/scripthash/abc/utxo".to_owned(), "Invalid scripthash"),
            ("/address/".to_owned(), "base58 error"),
        ] {
            let found = find(PUBLIC, &Method::GET, &path).expect(&path);
            let asked = Asked::default();
            let work = found.work(Network::Bitcoin, None, &asked, Bytes::new());
            assert_eq!(work.err().expect(&path).to_string(), want, "{path}");
        }
    }
}

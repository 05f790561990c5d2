//! Who may ask how often: API keys, and limits of keys and of addresses. All of it is off by
//! default.
//!
//! ```text
//! request -> health? -> key? its limit -> else 401, or the limit of the address -> 429
//! ```
//!
//! # Security
//! A wrong key is refused, so that its holder notices; it counts for its address first. What a
//! proxy says of its client is believed only from addresses that the operator trusts, and only
//! up to the first that is not one of these. Keys are not logged; metrics name them by id.
//!
//! # Limits
//! An address is remembered until its allowance is whole again. With [`MANY_ADDRESSES`] of
//! them those are looked through, and above [`MOST_ADDRESSES`] new ones are refused.

mod config;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::{Arc, OnceLock},
};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, header},
};
use governor::{
    NotUntil, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed, keyed::HashMapStateStore},
};
use parking_lot::Mutex;
use pulse_primitives::api_keys::{ApiKey, ApiKeyStore, MAX_API_KEYS};

pub use self::config::{AccessConfig, KeyUse};
use crate::{metrics, places::network, rest::error::RestError, server::Client};

/// Seconds whose requests may come at once.
const BURST_SECS: u32 = 10;
/// Remembered addresses from which on those are forgotten whose allowance is whole.
const MANY_ADDRESSES: usize = 100_000;
/// Most addresses that are remembered.
const MOST_ADDRESSES: usize = 1_000_000;

/// Before a key among the subprotocols of a WebSocket.
const KEY_PROTOCOL: &str = "pulse-key.";
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

type OfKey<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;
/// Requests per second of a key, and who counts them.
type Allowance<C> = (u32, Arc<OfKey<C>>);
type OfAddresses<C> =
    RateLimiter<IpAddr, HashMapStateStore<IpAddr>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// Keys and limits of one listener.
pub(crate) struct Access<C: Clock = DefaultClock> {
    config: AccessConfig,
    clock: C,
    keys: OnceLock<Arc<dyn ApiKeyStore>>,
    addresses: Option<OfAddresses<C>>,
    /// By the id of the key.
    by_key: Mutex<HashMap<String, Allowance<C>>>,
}

impl Access {
    /// What `config` asks for.
    pub(crate) fn new(config: AccessConfig) -> Self {
        Self::with_clock(config, DefaultClock::default())
    }

    /// Nothing is refused.
    pub(crate) fn open() -> Self {
        Self::new(AccessConfig::default())
    }
}

impl<C: Clock + Clone> Access<C> {
    fn with_clock(config: AccessConfig, clock: C) -> Self {
        let of_addresses =
            |quota| RateLimiter::new(quota, HashMapStateStore::default(), clock.clone());
        Self {
            addresses: quota(config.requests_per_second_per_address).map(of_addresses),
            config,
            clock,
            keys: OnceLock::new(),
            by_key: Mutex::default(),
        }
    }

    /// Sets where keys are found. The first call counts.
    pub(crate) fn set_keys(&self, keys: Arc<dyn ApiKeyStore>) {
        let _ = self.keys.set(keys);
    }

    /// Whether a request may be answered. `from` is where its connection comes from.
    ///
    /// # Errors
    /// [`RestError::NoApiKey`], [`RestError::WrongApiKey`], [`RestError::TooManyRequests`].
    fn admit(
        &self,
        path: &str,
        headers: &HeaderMap,
        from: Option<IpAddr>,
    ) -> Result<(), RestError> {
        if is_monitor(path) {
            return Ok(());
        }
        let from = from.map(|from| client(headers, from, &self.config.trusted_proxies));
        self.count(self.sent_key(headers), from)
    }

    /// The key that a client has sent, if keys are looked at.
    fn sent_key<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        match self.config.api_keys {
            KeyUse::Off => None,
            KeyUse::Optional | KeyUse::Required => key_of(headers),
        }
    }

    /// Counts a request of `client` with the key that it has `sent`.
    fn count(&self, sent: Option<&str>, client: Option<IpAddr>) -> Result<(), RestError> {
        if let Some(key) = sent
            && let Some(key) = self.keys.get().and_then(|keys| keys.find_key(key))
        {
            metrics::key_used(&key.id);
            return self.count_key(&key);
        }
        if let Some(client) = client {
            self.count_address(client)?;
        }
        match (sent, self.config.api_keys) {
            (Some(_), _) => Err(RestError::WrongApiKey),
            (None, KeyUse::Required) => Err(RestError::NoApiKey),
            (None, _) => Ok(()),
        }
    }

    fn count_key(&self, key: &ApiKey) -> Result<(), RestError> {
        let rate = key.requests_per_second;
        let rate = rate.unwrap_or(self.config.requests_per_second_per_key);
        let Some(quota) = quota(rate) else {
            return Ok(());
        };
        let limiter = {
            let mut by_key = self.by_key.lock();
            if by_key.len() >= 2 * MAX_API_KEYS {
                // Those that were revoked meanwhile; the others begin anew.
                by_key.clear();
            }
            let found = by_key.get(&key.id).filter(|(known, _)| *known == rate);
            match found {
                Some((_, limiter)) => Arc::clone(limiter),
                None => {
                    let limiter =
                        RateLimiter::new(quota, InMemoryState::default(), self.clock.clone());
                    let limiter = Arc::new(limiter);
                    by_key.insert(key.id.clone(), (rate, Arc::clone(&limiter)));
                    limiter
                }
            }
        };
        limiter.check().map_err(|until| self.too_many(&until))
    }

    fn count_address(&self, client: IpAddr) -> Result<(), RestError> {
        let Some(addresses) = &self.addresses else {
            return Ok(());
        };
        if addresses.len() >= MANY_ADDRESSES {
            addresses.retain_recent();
            if addresses.len() >= MOST_ADDRESSES {
                return Err(RestError::TooManyRequests { secs: 1 });
            }
        }
        let checked = addresses.check_key(&network(client));
        checked.map_err(|until| self.too_many(&until))
    }

    fn too_many(&self, until: &NotUntil<C::Instant>) -> RestError {
        let wait = until.wait_time_from(self.clock.now());
        let secs = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX);
        RestError::TooManyRequests {
            secs: secs.saturating_add(1),
        }
    }
}

/// Whose limit the messages on a connection count for that stays open.
#[derive(Clone)]
pub(crate) struct Meter {
    access: Arc<Access>,
    key: Option<String>,
    client: Option<IpAddr>,
}

impl Meter {
    fn new(access: &Arc<Access>, headers: &HeaderMap, from: Option<IpAddr>) -> Self {
        let trusted = &access.config.trusted_proxies;
        Self {
            key: access.sent_key(headers).map(str::to_owned),
            client: from.map(|from| client(headers, from, trusted)),
            access: Arc::clone(access),
        }
    }

    /// Whether the connection may stay open: its key has not been revoked.
    pub(crate) fn is_admitted(&self) -> bool {
        let is_known = |key: &String| {
            let keys = self.access.keys.get();
            keys.is_some_and(|keys| keys.find_key(key).is_some())
        };
        self.key.as_ref().is_none_or(is_known)
    }

    /// Counts a message like a request.
    ///
    /// # Errors
    /// [`RestError::TooManyRequests`], [`RestError::WrongApiKey`] once the key is revoked.
    pub(crate) fn count(&self) -> Result<(), RestError> {
        let counted = self.access.count(self.key.as_deref(), self.client);
        counted.inspect_err(refused)
    }
}

/// Whether a path is one that monitors ask: they must not be told that the node is ill because
/// clients are many.
pub(crate) fn is_monitor(path: &str) -> bool {
    matches!(path, "/health" | "/health/live")
}

fn quota(per_second: u32) -> Option<Quota> {
    let rate = NonZeroU32::new(per_second)?;
    let burst = NonZeroU32::new(per_second.saturating_mul(BURST_SECS))?;
    Some(Quota::per_second(rate).allow_burst(burst))
}

/// The key that a client has sent. A page can give a WebSocket no header but its subprotocols.
fn key_of<'a>(headers: &'a HeaderMap) -> Option<&'a str> {
    if let Some(key) = headers.get(API_KEY) {
        // One that is no text is wrong, too.
        return Some(key.to_str().unwrap_or_default());
    }
    let bearer = |value: &'a HeaderValue| {
        let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    };
    let bearer = headers.get(header::AUTHORIZATION).and_then(bearer);
    bearer.or_else(|| subprotocols(headers).find_map(|name| name.strip_prefix(KEY_PROTOCOL)))
}

/// The subprotocols that a client of a WebSocket offers.
pub(crate) fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let names = lines.flat_map(|line| line.to_str().unwrap_or_default().split(','));
    names.map(str::trim)
}

/// Whom a request is from: the last in `X-Forwarded-For` that is no trusted proxy, if it came
/// from one.
pub(crate) fn client(headers: &HeaderMap, from: IpAddr, trusted: &[ipnet::IpNet]) -> IpAddr {
    let is_trusted = |addr: &IpAddr| trusted.iter().any(|network| network.contains(addr));
    let mut client = from.to_canonical();
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    let mut named = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
    while is_trusted(&client) {
        let Some(addr) = named.next().and_then(|text| address(text.trim())) else {
            break;
        };
        client = addr.to_canonical();
    }
    client
}

/// An address, alone or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let alone = text.trim_start_matches('[').trim_end_matches(']').parse();
    let with_port = || text.parse().map(|addr: SocketAddr| addr.ip());
    alone.ok().or_else(|| with_port().ok())
}

/// Whether a request may be answered. One whose connection may stay open carries its [`Meter`]
/// from then on.
///
/// # Errors
/// Those of [`Access::admit`].
pub(crate) fn admit(access: &Arc<Access>, request: &mut Request) -> Result<(), RestError> {
    let from = request.extensions().get::<Client>();
    let from = from.map(|client| client.addr);
    let headers = request.headers();
    let admitted = access.admit(request.uri().path(), headers, from);
    admitted.inspect_err(refused)?;
    if headers.contains_key(header::UPGRADE) || access.sent_key(headers).is_some() {
        let meter = Meter::new(access, headers, from);
        request.extensions_mut().insert(meter);
    }
    Ok(())
}

fn refused(error: &RestError) {
    metrics::access_refused(match error {
        RestError::NoApiKey => "no_key",
        RestError::WrongApiKey => "wrong_key",
        _ => "too_many",
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::{http::HeaderValue, response::IntoResponse};
    use governor::clock::FakeRelativeClock;
    use pulse_primitives::api_keys::{ApiKeyError, NewApiKey};

    use super::*;

    struct Fake;

    impl ApiKeyStore for Fake {
        fn find_key(&self, key: &str) -> Option<ApiKey> {
            let requests_per_second = match key {
                "good" => None,
                "fast" => Some(3),
                _ => return None,
            };
            Some(ApiKey {
                id: key.to_owned(),
                name: key.to_owned(),
                created: 0,
                requests_per_second,
                sha256: String::new(),
            })
        }

        fn api_keys(&self) -> Vec<ApiKey> {
            Vec::new()
        }

        fn create_key(&self, _: &str, _: Option<u32>, _: u64) -> Result<NewApiKey, ApiKeyError> {
            Err(ApiKeyError::TooMany)
        }

        fn revoke_key(&self, _: &str) -> Result<bool, ApiKeyError> {
            Ok(false)
        }

        fn import_keys(&self, _: &[ApiKey]) -> Result<(), ApiKeyError> {
            Ok(())
        }
    }

    fn access(config: AccessConfig) -> (Access<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let access = Access::with_clock(config, clock.clone());
        access.set_keys(Arc::new(Fake));
        (access, clock)
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    /// What a client from `from` is told.
    fn ask(
        access: &Access<FakeRelativeClock>,
        from: &str,
        pairs: &[(&'static str, &str)],
    ) -> Result<(), String> {
        let from = Some(from.parse().unwrap());
        let asked = access.admit("/blocks", &headers(pairs), from);
        asked.map_err(|error| error.to_string())
    }

    const TOO_MANY: &str = "Too many requests";

    #[test]
    fn nothing_is_refused_by_default() {
        let (access, _) = access(AccessConfig::default());
        for _ in 0..1_000 {
            let wrong = [("x-api-key", "wrong")];
            assert_eq!(ask(&access, "192.0.2.1", &wrong), Ok(()));
        }
    }

    #[test]
    fn an_address_has_its_rate_and_ten_seconds_at_once() {
        let (access, clock) = access(AccessConfig {
            requests_per_second_per_address: 2,
            ..AccessConfig::default()
        });
        for _ in 0..20 {
            assert_eq!(ask(&access, "192.0.2.1", &[]), Ok(()));
        }
        assert_eq!(ask(&access, "192.0.2.1", &[]), Err(TOO_MANY.to_owned()));
        assert_eq!(ask(&access, "192.0.2.2", &[]), Ok(()));
        // As IPv6, and what monitors ask.
        assert_eq!(
            ask(&access, "::ffff:192.0.2.1", &[]),
            Err(TOO_MANY.to_owned())
        );
        let from = Some("192.0.2.1".parse().unwrap());
        assert!(access.admit("/health", &HeaderMap::new(), from).is_ok());
        clock.advance(Duration::from_millis(600));
        assert_eq!(ask(&access, "192.0.2.1", &[]), Ok(()));
        assert_eq!(ask(&access, "192.0.2.1", &[]), Err(TOO_MANY.to_owned()));
        // The network of a client of IPv6 counts.
        for host in 0..20 {
            let from = format!("2001:db8::{host:x}");
            assert_eq!(ask(&access, &from, &[]), Ok(()));
        }
        assert_eq!(
            ask(&access, "2001:db8::ffff", &[]),
            Err(TOO_MANY.to_owned())
        );
        assert_eq!(ask(&access, "2001:db8:0:1::1", &[]), Ok(()));
    }

    #[test]
    fn a_refusal_says_when_to_ask_again() {
        let (access, _) = access(AccessConfig {
            requests_per_second_per_address: 1,
            ..AccessConfig::default()
        });
        let from = Some("192.0.2.1".parse().unwrap());
        let ask = || access.admit("/blocks", &HeaderMap::new(), from);
        for _ in 0..10 {
            ask().unwrap();
        }
        let response = ask().unwrap_err().into_response();
        assert_eq!(response.status(), 429);
        let secs = response.headers()[header::RETRY_AFTER].to_str().unwrap();
        assert!(["1", "2"].contains(&secs), "{secs}");
    }

    #[test]
    fn a_key_counts_for_itself_and_a_wrong_one_is_refused() {
        for api_keys in [KeyUse::Optional, KeyUse::Required] {
            let (access, _) = access(AccessConfig {
                api_keys,
                requests_per_second_per_address: 1,
                requests_per_second_per_key: 2,
                ..AccessConfig::default()
            });
            let without = ask(&access, "192.0.2.1", &[]);
            match api_keys {
                KeyUse::Required => assert_eq!(without, Err("API key required".to_owned())),
                _ => assert_eq!(without, Ok(())),
            }
            for (header, value, count) in [
                ("x-api-key", "good", 10),
                ("authorization", "Bearer good", 10),
                ("authorization", "bearer fast", 30),
            ] {
                for _ in 0..count {
                    assert_eq!(ask(&access, "192.0.2.1", &[(header, value)]), Ok(()));
                }
            }
            for key in ["good", "fast"] {
                let asked = ask(&access, "192.0.2.9", &[("x-api-key", key)]);
                assert_eq!(asked, Err(TOO_MANY.to_owned()), "{key}");
            }
            let wrong = [("x-api-key", "wrong")];
            for _ in 0..9 {
                let asked = ask(&access, "192.0.2.1", &wrong);
                assert_eq!(asked, Err("Invalid API key".to_owned()));
            }
            // Guessing is bounded as asking is.
            assert_eq!(ask(&access, "192.0.2.1", &wrong), Err(TOO_MANY.to_owned()));
            // Other schemes are somebody else's.
            let basic = ask(&access, "192.0.2.7", &[("authorization", "Basic Zzz=")]);
            assert_eq!(basic.is_ok(), api_keys == KeyUse::Optional);
        }
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted = [
            "10.0.0.0/8".parse().unwrap(),
            "2001:db8::/32".parse().unwrap(),
        ];
        for (from, lines, wanted) in [
            ("192.0.2.1", &["198.51.100.7"][..], "192.0.2.1"),
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("::ffff:10.0.0.1", &["198.51.100.7:4711"], "198.51.100.7"),
            (
                "10.0.0.1",
                &["1.1.1.1, 198.51.100.7, 10.9.9.9"],
                "198.51.100.7",
            ),
            ("10.0.0.1", &["1.1.1.1", "198.51.100.7"], "198.51.100.7"),
            ("2001:db8::1", &["[2002::7]:80"], "2002::7"),
            ("10.0.0.1", &["198.51.100.7, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &[], "10.0.0.1"),
        ] {
            let pairs: Vec<_> = lines
                .iter()
                .map(|line| ("x-forwarded-for", *line))
                .collect();
            let found = client(&headers(&pairs), from.parse().unwrap(), &trusted);
            assert_eq!(found, wanted.parse::<IpAddr>().unwrap(), "{from} {lines:?}");
        }
    }
}

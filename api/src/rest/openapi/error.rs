//! Errors in the document: from the type that makes them to a status and a schema of their
//! text.

use pulse_request::RequestError;
use serde_json::{Value, json};

use super::super::error::RestError;

/// What an address that cannot be read is answered with.
const ADDRESS_TEXTS: [&str; 6] = [
    "base58 error",
    "legacy address base58 string",
    "legacy address base58 data",
    "legacy address base58 prefix",
    "tried to parse an unknown hrp",
    "Invalid Bitcoin address",
];

/// The texts that an error may have.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ErrorText {
    /// HTTP status.
    pub(super) status: u16,
    /// Schemas of which the text has one.
    pub(super) schemas: Vec<Value>,
    /// Its `Cache-Control`; most errors have none.
    pub(super) cache: Option<&'static str>,
}

impl ErrorText {
    /// An error with one text.
    pub(crate) fn exact(status: u16, text: &str) -> Self {
        Self::new(status, vec![json!({"const": text})])
    }

    /// An error whose text has a regular form.
    pub(crate) fn pattern(status: u16, pattern: &str) -> Self {
        Self::new(status, vec![json!({"pattern": pattern})])
    }

    /// An address that cannot be read.
    pub(crate) fn address() -> Self {
        let texts = ADDRESS_TEXTS.iter();
        Self::new(400, texts.map(|text| json!({"const": text})).collect())
    }

    fn new(status: u16, schemas: Vec<Value>) -> Self {
        Self {
            status,
            schemas,
            cache: None,
        }
    }

    /// The same, of an error that no cache may keep.
    pub(crate) fn uncached(mut self) -> Self {
        self.cache = Some("no-store");
        self
    }

    /// A refusal in the words of one of Bitcoin Core's methods.
    pub(crate) fn rpc(method: &str) -> Self {
        let object = r#"\{"code":-?[0-9]+,"message":".+"\}$"#;
        Self::pattern(
            400,
            &format!("^{method} RPC error( -?[0-9]+: .+|: {object})"),
        )
    }
}

impl From<&RequestError> for ErrorText {
    /// As for [`RestError`].
    fn from(error: &RequestError) -> Self {
        match error {
            RequestError::InvalidBody { .. } => Self::pattern(400, ".+"),
            RequestError::InvalidDescriptor { .. } => Self::pattern(400, "^Descriptor [0-9]+: .+"),
            other => Self::exact(400, &other.to_string()),
        }
    }
}

impl From<RequestError> for ErrorText {
    fn from(error: RequestError) -> Self {
        (&error).into()
    }
}

impl From<RestError> for ErrorText {
    /// As for a reference.
    fn from(error: RestError) -> Self {
        (&error).into()
    }
}

impl From<&RestError> for ErrorText {
    /// The text as it is sent; where it has variable parts, their form.
    fn from(error: &RestError) -> Self {
        use RestError as E;
        let status = error.status().as_u16();
        let pattern = match error {
            E::NoEndpoint { .. } => "^endpoint does not exist \".*\"$",
            E::Request(error) => return error.into(),
            E::BodyUnreadable { .. } => ".+",
            E::InvalidTxSize { .. } => "^Invalid transaction size for item [0-9]+$",
            E::InvalidTxHex { .. } => "^Invalid transaction hex for item [0-9]+$",
            E::NotSynced { .. } => "^node is not synced yet: .+",
            _ => {
                return Self {
                    cache: error.cache(),
                    ..Self::exact(status, &error.to_string())
                };
            }
        };
        Self::pattern(status, pattern)
    }
}

/// The text of a response that has one of these.
pub(super) fn response(description: &str, texts: &[Value]) -> Value {
    let schema = match texts {
        [one] => one.clone(),
        many => json!({"anyOf": many}),
    };
    let mut schema = schema;
    schema["type"] = json!("string");
    json!({
        "description": description,
        "content": {"text/plain": {"schema": schema}},
    })
}

/// Headers that answers to questions about the chain may have, errors included.
pub(super) fn add_read_headers(response: &mut Value) {
    response["headers"]["X-Indexed-Height"] = json!({
        "description": "Height up to which the answer to `partial` knows the chain.",
        "schema": {"type": "integer", "minimum": 0},
    });
    response["headers"]["X-Pulse-Source"] = json!({
        "description": "`fallback` if another server has answered, as the operator of a node \
                        that is not synced may want; else absent.",
        "schema": {"const": "fallback"},
    });
}

/// Names of the [`shared`] responses with their status: what every route may answer.
pub(super) const ALWAYS: [(&str, &str); 6] = [
    ("401", "Unauthorized"),
    ("408", "BodyTimeout"),
    ("413", "BodyTooLarge"),
    ("429", "TooMany"),
    ("500", "Internal"),
    ("503", "Unavailable"),
];

/// Responses that many routes have. `further` are texts that a 503 can have besides the usual
/// ones.
pub(super) fn shared(further: &[&str]) -> Vec<(&'static str, Value)> {
    let text = |description: &str, error: RestError| {
        response(description, &ErrorText::from(error).schemas)
    };
    let mut unavailable = Vec::new();
    for error in [
        RestError::NotSynced {
            reason: String::new(),
        },
        RestError::MempoolBehind,
        RestError::Busy,
        RestError::QueryTimeout,
    ] {
        unavailable.extend(ErrorText::from(error).schemas);
    }
    unavailable.push(json!({"const": "index read failed"}));
    unavailable.extend(further.iter().map(|text| json!({"const": text})));
    unavailable.push(json!({
        "pattern": "^the position of block [0-9]+ is being renewed; try again$"
    }));
    let mut unavailable = response(
        "The node cannot answer now: it is not synced, it is starting (JSON), it is \
         overloaded, or a read has failed. `Retry-After` says when to ask again.",
        &unavailable,
    );
    unavailable["content"]["application/json"]["schema"] =
        json!({"$ref": "#/components/schemas/Readiness"});
    let retry = json!({
        "Retry-After": {
            "description": "Seconds after which asking again makes sense.",
            "required": true,
            "schema": {"type": "integer", "minimum": 1},
        }
    });
    unavailable["headers"] = retry.clone();
    let texts = |errors: &[RestError]| {
        let texts = errors.iter().map(|error| ErrorText::from(error).schemas);
        texts.collect::<Vec<_>>().concat()
    };
    let mut too_many = response(
        "The client's key or address asks too often, or has too many connections or subscriptions.",
        &texts(&[
            RestError::TooManyConnections,
            RestError::TooManySubscriptions,
            RestError::TooManyRequests { secs: 1 },
        ]),
    );
    too_many["headers"] = retry;
    let mut unauthorized = response(
        "The operator wants an API key, and there is none or a wrong one.",
        &texts(&[RestError::NoApiKey, RestError::WrongApiKey]),
    );
    unauthorized["headers"] = json!({
        "WWW-Authenticate": {"required": true, "schema": {"const": "Bearer"}},
    });
    let mut internal = text("A bug.", RestError::Internal);
    add_read_headers(&mut unavailable);
    add_read_headers(&mut internal);
    vec![
        (
            "BodyTimeout",
            text("The request body takes too long.", RestError::BodyTimeout),
        ),
        (
            "BodyTooLarge",
            text(
                "The request body has more than 1,000,000 bytes.",
                RestError::BodyTooLarge,
            ),
        ),
        ("Internal", internal),
        ("TooMany", too_many),
        ("Unauthorized", unauthorized),
        ("Unavailable", unavailable),
    ]
}

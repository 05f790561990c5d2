//! JSON-RPC: from a line to calls, and from results to a line. Pure.
//!
//! # Security
//! Everything here comes from strangers. The length of a line is bounded before it gets
//! here, and the depth of its JSON by the parser.

use std::str::FromStr;

use serde::Serialize;
use serde_json::Value;

/// Why a line, or a parameter of a request, cannot be read. What it displays is the message that
/// the client gets.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// Not JSON.
    #[error("parse error")]
    Parse,
    /// More requests in one line than there may be.
    #[error("batch exceeds {limit} requests")]
    BatchTooLong {
        /// The most that there may be.
        limit: usize,
    },
    /// A parameter is missing or not what it should be.
    #[error("{what}")]
    Params {
        /// What is wrong.
        what: String,
    },
}

impl RpcError {
    fn params(what: String) -> Self {
        Self::Params { what }
    }
}

/// A request.
#[derive(Debug, PartialEq)]
pub struct Call {
    /// Echoed as it came.
    pub id: Value,
    /// Its name.
    pub method: String,
    /// What it is about.
    pub params: Params,
}

/// Something in the place of a request that is none.
#[derive(Debug, PartialEq)]
pub struct BadCall {
    /// Its id, if it has one.
    pub id: Value,
}

/// What a line holds.
#[derive(Debug, PartialEq)]
pub enum Message {
    /// A request alone.
    One(Result<Call, BadCall>),
    /// Several, or none, in a list.
    Batch(Vec<Result<Call, BadCall>>),
}

/// Reads a line.
///
/// # Errors
/// [`RpcError::Parse`], [`RpcError::BatchTooLong`].
pub fn parse(line: &[u8], max_batch: usize) -> Result<Message, RpcError> {
    let value: Value = serde_json::from_slice(line).map_err(|_| RpcError::Parse)?;
    match value {
        Value::Array(calls) if calls.len() > max_batch => {
            Err(RpcError::BatchTooLong { limit: max_batch })
        }
        Value::Array(calls) => Ok(Message::Batch(calls.into_iter().map(call).collect())),
        one => Ok(Message::One(call(one))),
    }
}

fn call(value: Value) -> Result<Call, BadCall> {
    let Value::Object(mut fields) = value else {
        return Err(BadCall { id: Value::Null });
    };
    let id = fields.remove("id");
    let params = match fields.remove("params") {
        None | Some(Value::Null) => Some(Value::Array(Vec::new())),
        Some(params @ (Value::Array(_) | Value::Object(_))) => Some(params),
        Some(_) => None,
    };
    match (id, fields.remove("method"), params) {
        (Some(id), Some(Value::String(method)), Some(params)) => Ok(Call {
            id,
            method,
            params: Params(params),
        }),
        (id, ..) => Err(BadCall {
            id: id.unwrap_or_default(),
        }),
    }
}

/// The answer to the request with that id. `result` is JSON.
#[must_use]
pub fn success(id: &Value, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","result":{result},"id":{id}}}"#)
}

/// The answer to the request with that id that there is none.
#[must_use]
pub fn failure(id: &Value, code: i32, message: &str) -> String {
    let message = Value::from(message);
    format!(r#"{{"jsonrpc":"2.0","error":{{"code":{code},"message":{message}}},"id":{id}}}"#)
}

/// A notification. `params` is the JSON of an array.
#[must_use]
pub fn notification(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#)
}

/// JSON of a result.
///
/// # Panics
/// If it has keys that are no strings; the models have none.
pub fn json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).expect("the models have string keys and no I/O")
}

/// Parameters, by position or by name. Those too many are ignored.
#[derive(Debug, PartialEq)]
pub struct Params(Value);

impl Params {
    /// A parameter; `None` if it is not given or null.
    #[must_use]
    pub fn get(&self, index: usize, name: &str) -> Option<&Value> {
        let value = match &self.0 {
            Value::Array(list) => list.get(index),
            named => named.get(name),
        };
        value.filter(|value| !value.is_null())
    }

    fn required(&self, index: usize, name: &str) -> Result<&Value, RpcError> {
        self.get(index, name)
            .ok_or_else(|| RpcError::params(format!("missing {name}")))
    }

    /// A text.
    ///
    /// # Errors
    /// [`RpcError::Params`].
    pub fn text(&self, index: usize, name: &str) -> Result<&str, RpcError> {
        let value = self.required(index, name)?.as_str();
        value.ok_or_else(|| RpcError::params(format!("non-string {name}")))
    }

    /// A hash of 32 bytes, as 64 hex digits.
    ///
    /// # Errors
    /// [`RpcError::Params`].
    pub fn hash<T: FromStr>(&self, index: usize, name: &str) -> Result<T, RpcError> {
        let wrong = || RpcError::params(format!("non-hex {name}"));
        let value = self.required(index, name)?.as_str().ok_or_else(wrong)?;
        value.parse().map_err(|_| wrong())
    }

    /// A number that is not negative.
    ///
    /// # Errors
    /// [`RpcError::Params`].
    pub fn number(&self, index: usize, name: &str) -> Result<u32, RpcError> {
        integer(self.required(index, name)?, name)
    }

    /// As [`Params::number`]; `default` if it is not given.
    ///
    /// # Errors
    /// [`RpcError::Params`].
    pub fn number_or(&self, index: usize, name: &str, default: u32) -> Result<u32, RpcError> {
        match self.get(index, name) {
            None => Ok(default),
            Some(value) => integer(value, name),
        }
    }

    /// A flag; false if it is not given. Some clients send 0 and 1.
    ///
    /// # Errors
    /// [`RpcError::Params`].
    pub fn flag(&self, index: usize, name: &str) -> Result<bool, RpcError> {
        match self.get(index, name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::Number(n)) if n.as_u64().is_some_and(|n| n < 2) => {
                Ok(n.as_u64() == Some(1))
            }
            Some(_) => Err(RpcError::params(format!("non-boolean {name}"))),
        }
    }
}

fn integer(value: &Value, name: &str) -> Result<u32, RpcError> {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| RpcError::params(format!("{name} is not a non-negative integer")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn one(line: &str) -> Result<Call, BadCall> {
        match parse(line.as_bytes(), 3).unwrap() {
            Message::One(call) => call,
            Message::Batch(_) => panic!("a batch"),
        }
    }

    #[test]
    fn a_request_keeps_its_id_whatever_it_is() {
        for id in [
            json!(0),
            json!("a\"b"),
            json!(null),
            json!([1, {"x": 2}]),
            json!(1.5),
        ] {
            let line = json!({"id": id, "method": "m", "params": []}).to_string();
            let call = one(&line).unwrap();
            assert_eq!(call.id, id);
            let text = success(&call.id, "7");
            let parsed: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(parsed, json!({"jsonrpc": "2.0", "result": 7, "id": id}));
        }
    }

    #[test]
    fn what_is_no_request_is_told_apart() {
        assert!(matches!(parse(b"{", 3), Err(RpcError::Parse)));
        assert!(matches!(parse(b"", 3), Err(RpcError::Parse)));
        for (line, id) in [
            (r#"7"#, json!(null)),
            (r#"{"id":3}"#, json!(3)),
            (r#"{"id":3,"method":7,"params":[]}"#, json!(3)),
            (r#"{"id":3,"method":"m","params":"x"}"#, json!(3)),
            (r#"{"method":"m","params":[]}"#, json!(null)),
        ] {
            assert_eq!(one(line).unwrap_err().id, id, "{line}");
        }
        let four = parse(b"[1,2,3,4]", 3);
        assert!(matches!(four, Err(RpcError::BatchTooLong { limit: 3 })));
        assert_eq!(parse(b"[]  ", 3).unwrap(), Message::Batch(Vec::new()));
    }

    #[test]
    fn errors_have_code_and_text_as_json() {
        let text = failure(&json!(5), 1, "rejected.\n\na \"b\"");
        assert!(!text.contains('\n'));
        let parsed: Value = serde_json::from_str(&text).unwrap();
        let error = json!({"code": 1, "message": "rejected.\n\na \"b\""});
        assert_eq!(parsed, json!({"jsonrpc": "2.0", "id": 5, "error": error}));
    }

    #[test]
    fn parameters_come_by_position_or_by_name() {
        let by_position = Params(json!(["ab", 3, true, null]));
        let by_name = Params(json!({"text": "ab", "n": 3, "flag": 1}));
        for params in [by_position, by_name] {
            assert_eq!(params.text(0, "text").unwrap(), "ab");
            assert_eq!(params.number(1, "n").unwrap(), 3);
            assert!(params.flag(2, "flag").unwrap());
            assert_eq!(params.number_or(3, "more", 9).unwrap(), 9);
            let missing = params.text(3, "hash").unwrap_err();
            assert_eq!(missing.to_string(), "missing hash");
            assert!(params.number(0, "text").is_err());
            assert!(params.flag(0, "text").is_err());
        }
        for wrong in [
            json!([-1]),
            json!([4_294_967_296_u64]),
            json!([1.5]),
            json!(["1"]),
        ] {
            assert!(Params(wrong).number(0, "n").is_err());
        }
    }

    proptest! {
        #[test]
        fn no_line_of_bytes_does_harm(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&line, 5);
        }

        #[test]
        fn no_line_of_json_does_harm(line in r#"[\[\]{}":,a-z0-9. \\-]{0,80}"#) {
            if let Ok(Message::One(Ok(call))) = parse(line.as_bytes(), 5) {
                let text = failure(&call.id, -32601, &call.method);
                prop_assert!(serde_json::from_str::<Value>(&text).is_ok());
                prop_assert!(!text.contains('\n'));
            }
        }
    }
}

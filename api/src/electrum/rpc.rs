//! JSON-RPC: from a line to calls, and from results to a line. Pure.
//!
//! # Security
//! Everything here comes from strangers. The length of a line is bounded before it gets
//! here, and the depth of its JSON by the parser.

use std::str::FromStr;

use serde::Serialize;
use serde_json::Value;

use super::error::ElectrumError;

/// A request.
#[derive(Debug, PartialEq)]
pub(super) struct Call {
    /// Echoed as it came.
    pub(super) id: Value,
    pub(super) method: String,
    pub(super) params: Params,
}

/// Something in the place of a request that is none.
#[derive(Debug, PartialEq)]
pub(super) struct BadCall {
    /// Its id, if it has one.
    pub(super) id: Value,
}

/// What a line holds.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    One(Result<Call, BadCall>),
    Batch(Vec<Result<Call, BadCall>>),
}

/// Reads a line.
///
/// # Errors
/// [`ElectrumError::Parse`], [`ElectrumError::BatchTooLong`].
pub(super) fn parse(line: &[u8], max_batch: usize) -> Result<Message, ElectrumError> {
    let value: Value = serde_json::from_slice(line).map_err(|_| ElectrumError::Parse)?;
    match value {
        Value::Array(calls) if calls.len() > max_batch => {
            Err(ElectrumError::BatchTooLong { limit: max_batch })
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
pub(super) fn reply(id: &Value, result: &Result<String, ElectrumError>) -> String {
    match result {
        Ok(result) => format!(r#"{{"jsonrpc":"2.0","result":{result},"id":{id}}}"#),
        Err(error) => {
            let (code, message) = (error.code(), Value::String(error.to_string()));
            format!(
                r#"{{"jsonrpc":"2.0","error":{{"code":{code},"message":{message}}},"id":{id}}}"#
            )
        }
    }
}

/// A notification. `params` is the JSON of an array.
pub(super) fn notification(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#)
}

/// JSON of a result.
pub(super) fn json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).expect("the models have string keys and no I/O")
}

/// Parameters, by position or by name. Those too many are ignored.
#[derive(Debug, PartialEq)]
pub(super) struct Params(Value);

impl Params {
    /// A parameter; `None` if it is not given or null.
    pub(super) fn get(&self, index: usize, name: &str) -> Option<&Value> {
        let value = match &self.0 {
            Value::Array(list) => list.get(index),
            named => named.get(name),
        };
        value.filter(|value| !value.is_null())
    }

    fn required(&self, index: usize, name: &str) -> Result<&Value, ElectrumError> {
        self.get(index, name)
            .ok_or_else(|| ElectrumError::params(format!("missing {name}")))
    }

    /// A text.
    pub(super) fn text(&self, index: usize, name: &str) -> Result<&str, ElectrumError> {
        let value = self.required(index, name)?.as_str();
        value.ok_or_else(|| ElectrumError::params(format!("non-string {name}")))
    }

    /// A hash of 32 bytes, as 64 hex digits.
    pub(super) fn hash<T: FromStr>(&self, index: usize, name: &str) -> Result<T, ElectrumError> {
        let wrong = || ElectrumError::params(format!("non-hex {name}"));
        let value = self.required(index, name)?.as_str().ok_or_else(wrong)?;
        value.parse().map_err(|_| wrong())
    }

    /// A number that is not negative.
    pub(super) fn number(&self, index: usize, name: &str) -> Result<u32, ElectrumError> {
        integer(self.required(index, name)?, name)
    }

    /// As [`Params::number`]; `default` if it is not given.
    pub(super) fn number_or(
        &self,
        index: usize,
        name: &str,
        default: u32,
    ) -> Result<u32, ElectrumError> {
        match self.get(index, name) {
            None => Ok(default),
            Some(value) => integer(value, name),
        }
    }

    /// A flag; false if it is not given. Some clients send 0 and 1.
    pub(super) fn flag(&self, index: usize, name: &str) -> Result<bool, ElectrumError> {
        match self.get(index, name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::Number(n)) if n.as_u64().is_some_and(|n| n < 2) => {
                Ok(n.as_u64() == Some(1))
            }
            Some(_) => Err(ElectrumError::params(format!("non-boolean {name}"))),
        }
    }
}

fn integer(value: &Value, name: &str) -> Result<u32, ElectrumError> {
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| ElectrumError::params(format!("{name} is not a non-negative integer")))
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
            let text = reply(&call.id, &Ok("7".to_owned()));
            let parsed: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(parsed, json!({"jsonrpc": "2.0", "result": 7, "id": id}));
        }
    }

    #[test]
    fn what_is_no_request_is_told_apart() {
        assert!(matches!(parse(b"{", 3), Err(ElectrumError::Parse)));
        assert!(matches!(parse(b"", 3), Err(ElectrumError::Parse)));
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
        assert!(matches!(
            four,
            Err(ElectrumError::BatchTooLong { limit: 3 })
        ));
        assert_eq!(parse(b"[]  ", 3).unwrap(), Message::Batch(Vec::new()));
    }

    #[test]
    fn errors_have_code_and_text_as_json() {
        let error = ElectrumError::Rejected {
            reason: "a \"b\"".to_owned(),
        };
        let parsed: Value = serde_json::from_str(&reply(&json!(5), &Err(error))).unwrap();
        assert_eq!(
            parsed,
            json!({"jsonrpc": "2.0", "id": 5, "error": {"code": 1, "message": "the transaction was rejected by network rules.\n\na \"b\""}})
        );
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
            assert_eq!(
                (missing.code(), missing.to_string().as_str()),
                (-32602, "missing hash")
            );
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
                let text = reply(&call.id, &Err(ElectrumError::UnknownMethod { method: call.method }));
                prop_assert!(serde_json::from_str::<Value>(&text).is_ok());
                prop_assert!(!text.contains('\n'));
            }
        }
    }
}

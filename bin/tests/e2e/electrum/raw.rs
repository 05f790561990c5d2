//! A client that sends and reads lines, and hides nothing.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::e2e::common::DEADLINE;

pub struct Client {
    stream: BufReader<TcpStream>,
    next_id: u64,
    /// Notifications that came before an answer.
    notices: VecDeque<Value>,
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Self {
        Self::over(TcpStream::connect(addr).unwrap())
    }

    /// A client on a connection that is there.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self {
            stream: BufReader::new(stream),
            next_id: 0,
            notices: VecDeque::new(),
        }
    }

    /// A client that speaks `version`.
    pub fn speaking(addr: SocketAddr, version: &str) -> Self {
        let mut client = Self::connect(addr);
        let answer = client.call("server.version", json!(["test", version]));
        assert_eq!(answer[1], version);
        client
    }

    pub fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes());
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// The next line; `None` if the server has closed.
    pub fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap()),
            Err(err) if err.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(err) => panic!("no line: {err}"),
        }
    }

    /// The whole answer to a request.
    pub fn request(&mut self, method: &str, params: Value) -> Value {
        self.next_id += 1;
        let id = self.next_id;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.send(&format!("{request}\n"));
        loop {
            let answer = self.line().expect("the server answers");
            if answer.get("id").is_some() {
                assert_eq!(answer["id"], id);
                assert_eq!(answer["jsonrpc"], "2.0");
                return answer;
            }
            self.notices.push_back(answer);
        }
    }

    /// The result of a request.
    #[track_caller]
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        let mut answer = self.request(method, params);
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].take()
    }

    /// Code and text of the error of a request.
    #[track_caller]
    pub fn error(&mut self, method: &str, params: Value) -> (i64, String) {
        let answer = self.request(method, params);
        assert!(answer.get("result").is_none(), "{method}: {answer}");
        let error = &answer["error"];
        (
            error["code"].as_i64().unwrap(),
            error["message"].as_str().unwrap().to_owned(),
        )
    }

    /// The next notification.
    pub fn notice(&mut self) -> Value {
        if let Some(notice) = self.notices.pop_front() {
            return notice;
        }
        let notice = self.line().expect("the server is there");
        assert!(notice.get("id").is_none(), "{notice}");
        notice
    }

    /// Notifications until `wanted` holds of one, which is returned.
    pub fn notice_until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            assert!(Instant::now() < deadline, "no such notification");
            let notice = self.notice();
            if wanted(&notice) {
                return notice;
            }
        }
    }

    /// That nothing comes but what was asked for.
    pub fn assert_silent(&mut self) {
        self.call("server.ping", json!([]));
        assert!(self.notices.is_empty(), "{:?}", self.notices);
        let stream = self.stream.get_mut();
        let short = Some(Duration::from_millis(200));
        stream.set_read_timeout(short).unwrap();
        let mut byte = [0];
        let read = self.stream.read(&mut byte);
        assert!(read.is_err(), "{read:?}");
        self.stream
            .get_mut()
            .set_read_timeout(Some(DEADLINE))
            .unwrap();
    }
}

//! An HTTP/1.1 client that sends any path as it is, and shows the answer as it came.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(120);

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One connection that is kept, and opened again when the server has ended it.
pub struct Client {
    addr: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, stream: None }
    }

    /// Asks, once more if the connection was closed in between.
    pub fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Answer {
        let fresh = self.stream.is_none();
        let answer = self.try_ask(method, path, body);
        let answer = match answer {
            Err(_) if !fresh => {
                self.stream = None;
                self.try_ask(method, path, body)
            }
            answer => answer,
        };
        answer.unwrap_or_else(|err| panic!("{method} {path:?} of {}: {err}", self.addr))
    }

    fn try_ask(&mut self, method: &str, path: &str, body: &[u8]) -> std::io::Result<Answer> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(self.addr)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_nodelay(true)?;
            self.stream = Some(BufReader::new(stream));
        }
        let stream = self.stream.as_mut().expect("it was just opened");
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.addr);
        if method == "POST" {
            request += &format!("content-length: {}\r\n", body.len());
        }
        request += "\r\n";
        let request = [request.as_bytes(), body].concat();
        stream.get_mut().write_all(&request)?;
        let result = read(stream, method == "HEAD");
        if !matches!(&result, Ok(answer) if answer.header("connection") != Some("close")) {
            self.stream = None;
        }
        result
    }
}

fn line(stream: &mut impl BufRead) -> std::io::Result<String> {
    let mut line = String::new();
    match stream.read_line(&mut line)? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end().to_owned()),
    }
}

fn read(stream: &mut impl BufRead, no_body: bool) -> std::io::Result<Answer> {
    let first = line(stream)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(first))?;
    let mut headers = BTreeMap::new();
    loop {
        let line = line(stream)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = Vec::new();
    if no_body {
    } else if let Some(len) = headers.get("content-length") {
        let len = len.parse().map_err(std::io::Error::other)?;
        stream.take(len).read_to_end(&mut body)?;
    } else if headers.contains_key("transfer-encoding") {
        loop {
            let len = u64::from_str_radix(&line(stream)?, 16).map_err(std::io::Error::other)?;
            stream.take(len).read_to_end(&mut body)?;
            line(stream)?;
            if len == 0 {
                break;
            }
        }
    }
    Ok(Answer {
        status,
        headers,
        body,
    })
}

//! One request on a connection of its own, without a program beside: for what is asked a thousand times.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use crate::DEADLINE;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// HTTP status.
    pub status: u16,
    /// Status line and fields.
    pub head: String,
    /// Body, as the server framed it.
    pub body: String,
}

impl Said {
    /// The value of a field; nothing when there is none.
    pub fn field(&self, name: &str) -> &str {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut named = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        named.next().map_or("", |(_, value)| value.trim())
    }
}

/// `GET path` for a host, with more fields, each with its line end.
pub fn ask(address: SocketAddr, host: &str, path: &str, fields: &str) -> io::Result<Said> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let wrong = || io::Error::other(format!("not an answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(wrong)?;
    let status = head.get(9..12).and_then(|status| status.parse().ok());
    Ok(Said {
        status: status.ok_or_else(wrong)?,
        head: head.to_owned(),
        body: body.to_owned(),
    })
}

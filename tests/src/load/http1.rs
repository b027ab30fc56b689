//! HTTP/1.1, in the clear and over TLS.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use rustls::{ClientConnection, StreamOwned};

use super::{Plan, Reply, TIMEOUT};
use crate::tls;

trait ReadWrite: Read + Write {}
impl<S: Read + Write> ReadWrite for S {}

pub(super) struct Stream(BufReader<Box<dyn ReadWrite>>);

impl Stream {
    fn new(stream: impl Read + Write + 'static) -> Stream {
        Stream(BufReader::new(Box::new(stream)))
    }
}

pub(super) fn clear(plan: &Plan) -> io::Result<Stream> {
    connect(plan).map(Stream::new)
}

/// The connection, and the serial number of the certificate that the server showed.
pub(super) fn secure(plan: &Plan) -> io::Result<(Stream, String)> {
    let mut tcp = connect(plan)?;
    let name = tls::server_name(&plan.host)?;
    let mut client =
        ClientConnection::new(tls::client("http/1.1"), name).map_err(io::Error::other)?;
    while client.is_handshaking() {
        client.complete_io(&mut tcp)?;
    }
    let serial = tls::shown_serial(&client)?;
    Ok((Stream::new(StreamOwned::new(client, tcp)), serial))
}

fn connect(plan: &Plan) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(&plan.address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The answer; none when the connection ended before its first byte.
pub(super) fn exchange(plan: &Plan, Stream(stream): &mut Stream) -> io::Result<Option<Reply>> {
    let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", plan.path, plan.host);
    match stream.get_mut().write_all(request.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(None),
        other => other?,
    }
    let mut line = String::new();
    match stream.read_line(&mut line) {
        Ok(0) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset && line.is_empty() => {
            return Ok(None);
        }
        other => drop(other?),
    }
    let wrong = |what: &str| io::Error::other(format!("{what}: {line:?}"));
    let status = line
        .get(9..12)
        .and_then(|s| s.parse().ok())
        .ok_or_else(|| wrong("no status"))?;
    let (mut length, mut chunked, mut again, mut reason) = (0, false, true, String::new());
    loop {
        let mut field = String::new();
        stream.read_line(&mut field)?;
        let field = field.trim_end();
        if field.is_empty() {
            break;
        }
        let (name, value) = field.split_once(':').ok_or_else(|| wrong("no field"))?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().map_err(|_| wrong("no length"))?,
            "transfer-encoding" => chunked = true,
            "connection" => again = !value.to_ascii_lowercase().contains("close"),
            "meshgate-reason" => value.trim().clone_into(&mut reason),
            _ => {}
        }
    }
    if chunked {
        read_chunks(stream)?;
    } else {
        io::copy(&mut stream.by_ref().take(length), &mut io::sink())?;
    }
    Ok(Some(Reply {
        status,
        reason,
        again,
    }))
}

fn read_chunks(stream: &mut impl BufRead) -> io::Result<()> {
    loop {
        let mut size = String::new();
        stream.read_line(&mut size)?;
        let size = u64::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
        io::copy(&mut stream.by_ref().take(size + 2), &mut io::sink())?;
        if size == 0 {
            return Ok(());
        }
    }
}

//! The client: sends requests one after the other and prints each answer.

mod connect;
mod grpc;
mod http;

use std::io::Write;
use std::time::Duration;

use ::http::Uri;
use ::http::uri::InvalidUri;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::error::Elapsed;

use self::connect::{ConnectError, Target};

/// Bytes of an answer that are kept and printed.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// What to send where.
#[derive(Clone, Debug)]
pub struct CallOptions {
    /// `http://`, `https://`, `grpc://` (plaintext HTTP/2, method Echo), or `tcp://` (sends the data, reads to the end).
    pub url: String,
    /// How many requests, one after the other.
    pub count: u32,
    pub headers: Vec<(String, String)>,
    pub data: Option<String>,
    /// GET without, POST with data, unless given.
    pub method: Option<String>,
    /// Take any certificate.
    pub insecure: bool,
    /// Roots to verify the server's certificate with, instead of `SSL_CERT_FILE` or the system's.
    pub ca_pem: Option<String>,
    /// For each request, from connecting to the last byte of its answer.
    pub timeout: Duration,
}

impl Default for CallOptions {
    fn default() -> Self {
        Self {
            url: String::new(),
            count: 1,
            headers: Vec::new(),
            data: None,
            method: None,
            insecure: false,
            ca_pem: None,
            timeout: Duration::from_secs(30),
        }
    }
}

/// How the requests went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallSummary {
    /// Requests that were answered, whatever the answer.
    pub answered: u32,
    /// Requests without an answer, or with one that says failure (HTTP 400 and above, gRPC other than 0).
    pub failed: u32,
}

/// One answer, ready to print.
struct Answer {
    /// `200 OK`, or `grpc-status 0`; nothing for TCP.
    status: String,
    body: Vec<u8>,
    success: bool,
}

/// Sends the requests and writes the answers to `out`.
pub async fn call(options: CallOptions, out: &mut impl Write) -> Result<CallSummary, CallError> {
    let uri: Uri = options.url.parse().map_err(CallError::Url)?;
    let target = Target::of(&uri, &options)?;
    let mut summary = CallSummary::default();
    let mut http = http::Client::new(target.clone());
    for _ in 0..options.count {
        let attempt = async {
            match uri.scheme_str() {
                Some("tcp") => plain(&target, &options).await,
                Some("grpc") => grpc::call(&target, &options).await,
                _ => http.call(&uri, &options).await,
            }
        };
        let attempt = tokio::time::timeout(options.timeout, attempt).await;
        let result = match attempt
            .map_err(CallFailed::Timeout)
            .and_then(|result| result)
        {
            Ok(answer) => {
                summary.answered += 1;
                summary.failed += u32::from(!answer.success);
                print(out, &answer)
            }
            Err(failed) => {
                summary.failed += 1;
                writeln!(out, "failed: {}", chain(&failed))
            }
        };
        result.map_err(CallError::Print)?;
    }
    if options.count > 1 {
        let CallSummary { answered, failed } = summary;
        writeln!(out, "{answered} answered, {failed} failed").map_err(CallError::Print)?;
    }
    Ok(summary)
}

fn print(out: &mut impl Write, answer: &Answer) -> std::io::Result<()> {
    if !answer.status.is_empty() {
        writeln!(out, "{}", answer.status)?;
    }
    if !answer.body.is_empty() {
        out.write_all(&answer.body)?;
        if !answer.body.ends_with(b"\n") {
            writeln!(out)?;
        }
    }
    out.flush()
}

/// Sends the data, says that nothing follows, and reads what comes back to its end.
async fn plain(target: &Target, options: &CallOptions) -> Result<Answer, CallFailed> {
    let mut stream = target.connect().await?;
    if let Some(data) = &options.data {
        let line = format!("{data}\n");
        stream
            .write_all(line.as_bytes())
            .await
            .map_err(CallFailed::Stream)?;
    }
    stream.shutdown().await.map_err(CallFailed::Stream)?;
    let mut body = Vec::new();
    let mut limited = stream.take(ANSWER_BYTES_MAX as u64);
    limited
        .read_to_end(&mut body)
        .await
        .map_err(CallFailed::Stream)?;
    Ok(Answer {
        status: String::new(),
        success: !body.is_empty(),
        body,
    })
}

/// An error with all its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Why nothing can be sent at all.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("the URL cannot be read")]
    Url(#[source] InvalidUri),
    #[error("the URL needs a scheme (http, https, grpc or tcp) and a host")]
    Incomplete,
    #[error("TLS cannot be used")]
    Tls(#[source] connect::RootsError),
    #[error("cannot print")]
    Print(#[source] std::io::Error),
}

/// Why one request was not answered.
#[derive(Debug, thiserror::Error)]
enum CallFailed {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the request cannot be written")]
    Request(#[source] ::http::Error),
    #[error("the request was not answered")]
    Http(#[source] hyper::Error),
    #[error("the answer is not complete")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the connection broke")]
    Stream(#[source] std::io::Error),
    #[error("no answer in time")]
    Timeout(#[source] Elapsed),
    #[error("the answer is not the echo service's")]
    Message,
}

//! Requests over HTTP/1.1; a connection is used again while the server keeps it.

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use super::connect::Target;
use super::{ANSWER_BYTES_MAX, Answer, CallFailed, CallOptions};

pub(super) struct Client {
    target: Target,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            connection: None,
        }
    }

    pub(super) async fn call(
        &mut self,
        uri: &Uri,
        options: &CallOptions,
    ) -> Result<Answer, CallFailed> {
        let request = request(uri, options)?;
        // Taken out, and put back only after a whole answer: a failed connection is not used again.
        let mut connection = match self.connection.take() {
            Some(connection) if connection.is_ready() => connection,
            _ => self.connect().await?,
        };
        let answer = connection
            .send_request(request)
            .await
            .map_err(CallFailed::Http)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        let body = body.map_err(CallFailed::Body)?.to_bytes();
        if connection.ready().await.is_ok() {
            self.connection = Some(connection);
        }
        Ok(Answer {
            status: status.to_string(),
            body: body.to_vec(),
            success: status.as_u16() < 400,
        })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, CallFailed> {
        let stream = TokioIo::new(self.target.connect().await?);
        let (sender, connection) = http1::handshake(stream).await.map_err(CallFailed::Http)?;
        // Ends when the sender is dropped or the server closes; its errors reach the sender.
        tokio::spawn(connection);
        Ok(sender)
    }
}

fn request(uri: &Uri, options: &CallOptions) -> Result<Request<Full<Bytes>>, CallFailed> {
    let default_method = if options.data.is_some() {
        "POST"
    } else {
        "GET"
    };
    let method = options.method.as_deref().unwrap_or(default_method);
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut request = Request::builder().method(method).uri(target);
    let named = |name: &str| {
        options
            .headers
            .iter()
            .any(|(own, _)| own.eq_ignore_ascii_case(name))
    };
    if let Some(authority) = uri.authority()
        && !named("host")
    {
        request = request.header(HOST, authority.as_str());
    }
    if !named("user-agent") {
        request = request.header("user-agent", "meshgate-echo");
    }
    for (name, value) in &options.headers {
        request = request.header(name, value);
    }
    let body = options.data.clone().unwrap_or_default();
    request
        .body(Full::new(Bytes::from(body)))
        .map_err(CallFailed::Request)
}

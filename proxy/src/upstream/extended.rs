//! Changes of protocol with endpoints that speak HTTP/2: extended CONNECT (RFC 8441).

use meshgate_codec::http2::{RequestLine, Scheme};
use meshgate_codec::{Known, Method};
use meshgate_routing::upstream::Safety;

use super::Wire;
use super::connect::{Dialer, Origin};
use super::exchange::{Held, Upgraded, broken_http2, received_http2};
use crate::body::RequestBody;
use crate::failure::Failure;
use crate::head::Request;
use crate::headers::set;
use crate::http2::{Answer, Asked, Client};
use crate::websocket;

/// A connection on which the endpoint opens other protocols.
pub(super) struct Offer {
    client: Client,
    origin: Origin,
    scheme: Scheme,
}

/// The endpoint's offer to open what the request asks for. `None` when it has not announced that, or HTTP/2 has no words
/// for the request.
pub(super) async fn offered(
    dialer: Dialer<'_>,
    request: &Request,
) -> Result<Option<Offer>, Failure> {
    if protocol(request).is_none() {
        return Ok(None);
    }
    let (client, origin) = dialer.http2(Wire::Http2).await?;
    let patience = dialer.service.policy().connect_timeout;
    let opens = tokio::time::timeout(patience, client.opens_protocols());
    let opens = opens
        .await
        .map_err(|_| dialer.refused(&format_args!("no SETTINGS within {patience:?}")))?;
    let scheme = dialer.scheme(Wire::Http2);
    Ok(opens.then_some(Offer {
        client,
        origin,
        scheme,
    }))
}

/// What `:protocol` would say. Of several that a client offers in HTTP/1, only the endpoint can choose.
fn protocol(request: &Request) -> Option<&str> {
    let asked = request.upgrade.as_deref()?;
    if request.method != Method::Get || asked.contains(',') {
        return None;
    }
    if !asked.eq_ignore_ascii_case(websocket::NAME) {
        return Some(asked);
    }
    // Without a key it is none, and the endpoint is to say so.
    request
        .fields
        .contains(websocket::KEY)
        .then_some(websocket::NAME)
}

/// Opens the protocol on a stream of the connection.
pub(super) async fn open(
    offer: Offer,
    request: &Request,
    safety: Safety,
    held: Box<Held>,
) -> Result<Upgraded, Failure> {
    let Offer {
        client,
        origin,
        scheme,
    } = offer;
    let mut fields = request.fields.clone();
    let key = fields.get(websocket::KEY).map(<[u8]>::to_vec);
    fields.remove(websocket::KEY);
    let line = RequestLine {
        method: &Method::Connect,
        scheme,
        authority: &request.authority,
        path: &request.target,
        protocol: protocol(request),
    };
    let asked = Asked {
        line,
        fields: &fields,
        more: &[],
        interims: &request.interims,
    };
    let answer = client.exchange(asked, RequestBody::Empty).await;
    let answer = answer.map_err(|broken| broken_http2(broken, origin, safety))?;
    if !answer.agrees() {
        return received_http2(answer, held);
    }
    let Answer { head, outcome } = answer;
    let mut head = head.fields;
    // Means nothing here (RFC 9110 §9.3.6).
    head.remove(Known::ContentLength);
    head.remove(websocket::ACCEPT);
    if let Some(key) = key {
        // The endpoint's agreement, in the words that answer the client's key.
        set(
            &mut head,
            websocket::ACCEPT,
            websocket::accept(&key).as_bytes(),
        );
    }
    Ok(Upgraded::Yes {
        head,
        upstream: outcome.into_tunnel(client).into(),
        held,
    })
}

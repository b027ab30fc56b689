//! Names of services and pods (kubernetes/dns specification 1.1.0), served by every node to its own pods.
//!
//! Deliberately absent: forwarding. No packet leaves the cluster, so other names are refused at once, not after a
//! resolver's timeouts.

mod zone;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Metadata, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType, rdata};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use super::NetworkError;
pub(super) use zone::Zone;
use zone::{Answer, Data, Query};

/// The names in force; replaced whole when services change.
pub(super) type SharedZone = Arc<arc_swap::ArcSwap<Zone>>;

/// Seconds that a resolver may keep an answer: short, because endpoints move.
const TTL_S: u32 = 5;
/// A TCP conversation without a question ends after this.
const TCP_TIMEOUT: Duration = Duration::from_secs(10);
/// Answers that wait for a slow TCP reader.
const TCP_BUFFER: usize = 32;

/// Serves names on `address`, UDP and TCP, until `shutdown`. The zone starts empty.
pub(super) async fn serve(
    address: Ipv4Addr,
    shutdown: CancellationToken,
) -> Result<SharedZone, NetworkError> {
    let zone = SharedZone::default();
    let mut server = Server::new(Handler { zone: zone.clone() });
    let failed = |source| NetworkError::Setting {
        path: "the listening sockets for names (port 53)",
        source,
    };
    server.register_socket(UdpSocket::bind((address, 53)).await.map_err(failed)?);
    server.register_listener(
        TcpListener::bind((address, 53)).await.map_err(failed)?,
        TCP_TIMEOUT,
        TCP_BUFFER,
    );
    tokio::spawn(async move {
        shutdown.cancelled().await;
        if let Err(error) = server.shutdown_gracefully().await {
            tracing::warn!(%error, "names: the server did not end cleanly");
        }
    });
    Ok(zone)
}

struct Handler {
    zone: SharedZone,
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let mut records = Vec::new();
        match request.request_info() {
            Ok(info) => {
                let name = info.query.original().name().clone();
                match answer(&self.zone.load(), &name, info.query.query_type()) {
                    Ok(found) => {
                        metadata.authoritative = true;
                        records = found;
                    }
                    Err(code) => {
                        metadata.authoritative = code == ResponseCode::NXDomain;
                        metadata.response_code = code;
                    }
                }
            }
            Err(_) => metadata.response_code = ResponseCode::FormErr,
        }
        let message = MessageResponseBuilder::from_message_request(request).build(
            metadata,
            records.iter(),
            [],
            [],
            [],
        );
        match response.send_response(message).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "names: an answer could not be sent");
                ResponseInfo::from(hickory_proto::op::Header {
                    metadata,
                    counts: Default::default(),
                })
            }
        }
    }
}

fn answer(zone: &Zone, name: &Name, kind: RecordType) -> Result<Vec<Record>, ResponseCode> {
    let asked = name.to_ascii().trim_end_matches('.').to_ascii_lowercase();
    let query = match kind {
        RecordType::A => Query::Address,
        RecordType::SRV => Query::Port,
        RecordType::PTR => Query::Pointer,
        RecordType::CNAME => Query::Alias,
        RecordType::ANY => Query::Any,
        _ => Query::Other,
    };
    match zone.find(&asked, query) {
        Answer::Refused => Err(ResponseCode::Refused),
        Answer::NoSuchName => Err(ResponseCode::NXDomain),
        Answer::Records(found) => Ok(found
            .into_iter()
            .filter_map(|data| Some(Record::from_rdata(name.clone(), TTL_S, rdata_of(data)?)))
            .collect()),
    }
}

fn rdata_of(data: Data) -> Option<RData> {
    let name = |n: String| Name::from_ascii(n + ".").ok();
    Some(match data {
        Data::Address(address) => RData::A(rdata::A(address)),
        Data::Alias(target) => RData::CNAME(rdata::CNAME(name(target)?)),
        Data::Pointer(target) => RData::PTR(rdata::PTR(name(target)?)),
        Data::Port { port, target } => RData::SRV(rdata::SRV::new(0, 100, port, name(target)?)),
    })
}

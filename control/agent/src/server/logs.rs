//! `GET /containerLogs/NAMESPACE/POD/CONTAINER`.

use std::sync::PoisonError;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;

use super::Served;
use super::follow::{self, Source};
use super::lines::{self, Wanted};
use crate::container::{Adopted, adopt};
use crate::paths::PodName;
use crate::pod::{ContainerRecord, PodRecord};

/// The options of `kubectl logs`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Options {
    follow: Flag,
    previous: Flag,
    timestamps: Flag,
    tail_lines: Option<u64>,
    limit_bytes: Option<u64>,
    since_seconds: Option<i64>,
    since_time: Option<Timestamp>,
}

/// `true`, `1`, or the bare name.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(from = "String")]
struct Flag(bool);

impl From<String> for Flag {
    fn from(text: String) -> Flag {
        Flag(matches!(text.as_str(), "true" | "1" | ""))
    }
}

pub(super) async fn logs(
    State(served): State<Served>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    Query(options): Query<Options>,
) -> Response {
    match answer(&served, &namespace, &pod, &container, &options) {
        Ok(body) => ([("content-type", "text/plain")], body).into_response(),
        Err((status, message)) => (status, message).into_response(),
    }
}

type Refusal = (StatusCode, String);

fn answer(
    served: &Served,
    namespace: &str,
    pod: &str,
    container: &str,
    options: &Options,
) -> Result<Body, Refusal> {
    let (uid, waits_for) = {
        let entries = served.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries
            .get(&(namespace.to_owned(), pod.to_owned()))
            .ok_or_else(|| {
                (
                    StatusCode::NOT_FOUND,
                    format!("pod {pod:?} is not on this node"),
                )
            })?;
        let known =
            crate::pod::downward::containers(&entry.pod).any(|known| known.name == container);
        if !known {
            return Err((
                StatusCode::BAD_REQUEST,
                format!("container {container} is not valid for pod {pod}"),
            ));
        }
        let uid = entry.pod.metadata.uid.clone().unwrap_or_default();
        (uid, waiting_reason(&entry.pod, container))
    };
    let record = PodRecord::read(&served.paths.pod_data(&uid)).unwrap_or_default();
    let known = record
        .containers
        .get(container)
        .filter(|known| known.id.is_some());
    let Some(known) = known else {
        return Err((
            StatusCode::BAD_REQUEST,
            format!("container {container:?} in pod {pod:?} is waiting to start: {waits_for}"),
        ));
    };
    let run = match (options.previous.0, known.run) {
        (false, run) => run,
        (true, 0) => {
            return Err((
                StatusCode::BAD_REQUEST,
                format!("previous terminated container {container:?} in pod {pod:?} not found"),
            ));
        }
        (true, run) => run - 1,
    };
    let name = PodName {
        namespace,
        name: pod,
        uid: &uid,
    };
    let source = Source {
        log: served.paths.log(name, container, run),
        wanted: wanted(options),
        limit_bytes: options.limit_bytes,
    };
    let files = lines::files(&source.log);
    let start = match options.tail_lines {
        Some(lines) => lines::tail_start(&files, lines).map_err(|error| {
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("reading the log: {error}"),
            )
        })?,
        None => (0, 0),
    };
    let running = match options.follow.0 && !options.previous.0 {
        true => running(served, known),
        false => None,
    };
    Ok(Body::from_stream(follow::stream(
        source, files, start, running,
    )))
}

fn waiting_reason(pod: &Pod, container: &str) -> String {
    let statuses = pod.status.iter().flat_map(|status| {
        let inits = status.init_container_statuses.iter().flatten();
        inits.chain(status.container_statuses.iter().flatten())
    });
    statuses
        .filter(|status| status.name == container)
        .find_map(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone())
        .unwrap_or_else(|| "ContainerCreating".to_owned())
}

fn wanted(options: &Options) -> Wanted {
    let since = options.since_time.or_else(|| {
        let seconds = options.since_seconds?;
        Timestamp::now()
            .checked_sub(SignedDuration::from_secs(seconds))
            .ok()
    });
    Wanted {
        since: since.map(|at| at.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()),
        timestamps: options.timestamps.0,
    }
}

/// The container, if it still writes.
fn running(served: &Served, known: &ContainerRecord) -> Option<crate::container::Running> {
    let id = known.id.as_ref().filter(|_| known.ended.is_none())?;
    match adopt(&served.paths.container(id), id) {
        Adopted::Running(running) => Some(running),
        _ => None,
    }
}

//! Events do not stay: an hour after it was last seen, one is removed.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use meshgate_store::{Entry, Expect};
use serde_json::Value;

use crate::objects::{decode, prefix_of};
use crate::server::Server;

/// Life of an Event after it was last seen, as in Kubernetes.
const LIFE: SignedDuration = SignedDuration::from_hours(1);

/// Removes Events when their time comes. Runs until shutdown.
///
/// An Event written while this sleeps lives for [`LIFE`] from then on, so sleeping until the oldest known one is due,
/// and never longer than that life, misses none.
pub(crate) async fn expire(server: Arc<Server>) {
    loop {
        let now = Timestamp::now();
        let mut next = now.saturating_add(LIFE).unwrap_or(now);
        for entry in server.store.range(&prefix_of("", "events", "")).entries {
            let due = due(&entry);
            if due > now {
                next = next.min(due);
            } else if let Err(failure) = server
                .write(&entry.key, Expect::Unchanged(entry.modified), None)
                .await
            {
                // Tried again in the next round; the store says by itself that it takes no writes.
                tracing::debug!(key = %entry.key, %failure, "an expired event stays");
            }
        }
        let pause = next
            .duration_since(now)
            .max(SignedDuration::from_secs(1))
            .unsigned_abs();
        tokio::select! {
            () = server.shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// When an Event is to go; one that says no time goes now.
fn due(entry: &Entry) -> Timestamp {
    let Ok(event) = decode(entry) else {
        return Timestamp::MIN;
    };
    let seen = [
        &event["lastTimestamp"],
        &event["eventTime"],
        &event["series"]["lastObservedTime"],
        &event["metadata"]["creationTimestamp"],
    ];
    let times = seen
        .into_iter()
        .filter_map(Value::as_str)
        .filter_map(|text| text.parse::<Timestamp>().ok());
    times
        .max()
        .and_then(|seen| seen.checked_add(LIFE).ok())
        .unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::encode;
    use serde_json::json;

    fn check(event: Value, expected: &str) {
        let entry = Entry {
            key: "/registry/core/events/a/b".into(),
            value: encode(&event),
            created: 1,
            modified: 1,
        };
        assert_eq!(due(&entry).to_string(), expected, "{event}");
    }

    #[test]
    fn an_event_counts_from_when_it_was_last_seen() {
        check(
            json!({"metadata": {"creationTimestamp": "2024-01-01T00:00:00Z"}}),
            "2024-01-01T01:00:00Z",
        );
        check(
            json!({"metadata": {"creationTimestamp": "2024-01-01T00:00:00Z"}, "lastTimestamp": "2024-01-01T02:00:00Z", "eventTime": null}),
            "2024-01-01T03:00:00Z",
        );
    }
}

//! Events are forgotten some time after they happened last.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use meshgate_api::client::{Change, Key, Next, Queue, is_conflict, is_not_found};

use crate::context::Context;
use crate::objects::EventTimes;

/// Deletions under way at once.
const WORKERS: usize = 4;

/// The controller that deletes old Events.
pub(crate) struct Controller {
    context: Arc<Context>,
    queue: Queue<Key>,
}

impl Controller {
    pub(crate) fn new(context: &Arc<Context>) -> Self {
        let queue = Queue::default();
        let keys = queue.clone();
        context.events.on_change(move |change| {
            if !matches!(change, Change::Deleted(_)) {
                keys.add(Key::of(&**change.object()));
            }
        });
        Self {
            context: Arc::clone(context),
            queue,
        }
    }

    pub(crate) async fn run(&self) {
        self.queue
            .work("event-ttl", WORKERS, async |key: &Key| {
                self.reconcile(key).await
            })
            .await;
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, kube::Error> {
        let Some(event) = self.context.events.get(key) else {
            return Ok(Next::Event);
        };
        if let Some(left) = left(&event, self.context.options.event_ttl, Timestamp::now()) {
            return Ok(Next::After(left));
        }
        let api = Api::<EventTimes>::namespaced(self.context.client.clone(), &key.namespace);
        let preconditions = Preconditions {
            uid: event.metadata.uid.clone(),
            resource_version: event.metadata.resource_version.clone(),
        };
        let params = DeleteParams {
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        match api.delete(&key.name, &params).await {
            // Repeated meanwhile: the watch brings it back.
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(Next::Event),
            Err(error) => Err(error),
            Ok(_) => Ok(Next::Event),
        }
    }
}

/// How long the Event still has; nothing if it is over.
fn left(event: &EventTimes, ttl: Duration, now: Timestamp) -> Option<Duration> {
    let series = event
        .series
        .as_ref()
        .and_then(|series| series.last_observed_time.as_ref())
        .map(|time| time.0);
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    let first = event.event_time.as_ref().map(|time| time.0);
    let created = event
        .metadata
        .creation_timestamp
        .as_ref()
        .map(|time| time.0);
    let happened = series.max(last).max(first).max(created).unwrap_or(now);
    let age = Duration::try_from(now.duration_since(happened)).unwrap_or_default();
    ttl.checked_sub(age).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_time_counts() {
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().expect("a time");
        let check = |event: serde_json::Value, expected: Option<u64>| {
            let times: EventTimes = serde_json::from_value(event.clone()).expect("an event");
            assert_eq!(
                left(&times, Duration::from_secs(600), now).map(|left| left.as_secs()),
                expected,
                "{event}"
            );
        };
        check(serde_json::json!({"metadata": {}}), Some(600));
        check(
            serde_json::json!({"metadata": {}, "lastTimestamp": "2026-01-01T00:55:00Z"}),
            Some(300),
        );
        check(
            serde_json::json!({"metadata": {}, "eventTime": "2026-01-01T00:49:00.000000Z"}),
            None,
        );
        let series = serde_json::json!({"lastObservedTime": "2026-01-01T00:59:00.000000Z"});
        check(
            serde_json::json!({"metadata": {}, "eventTime": "2026-01-01T00:49:00.000000Z", "series": series}),
            Some(540),
        );
    }
}

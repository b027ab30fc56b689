//! Rows of events, of both faces.

use jiff::Timestamp;
use serde_json::Value;

use crate::time;
use crate::value::{at, int_at, text_at};

use super::columns::Column;

pub(super) const COLUMNS: &[Column] = &[
    Column::text("Last Seen", "When it happened the last time."),
    Column::text("Type", "Normal or Warning."),
    Column::text("Reason", "Why, in one word."),
    Column::text("Object", "What it happened to."),
    Column::text("Subobject", "Which part of it.").wide(),
    Column::text("Source", "Who reports it.").wide(),
    Column::text("Message", "What happened."),
    Column::text("First Seen", "When it happened the first time.").wide(),
    Column::number("Count", "How often it happened.").wide(),
    Column::text("Name", "The name of the event.").wide(),
];

pub(super) fn cells(event: &Value, now: Timestamp) -> Vec<Value> {
    let either = |core: &str, newer: &str| match text_at(event, core) {
        "" => text_at(event, newer),
        text => text,
    };
    let first = match either("firstTimestamp", "deprecatedFirstTimestamp") {
        "" => text_at(event, "eventTime"),
        text => text,
    };
    let series_count = int_at(event, "series.count");
    let last = match (
        series_count,
        either("lastTimestamp", "deprecatedLastTimestamp"),
    ) {
        (Some(_), _) => text_at(event, "series.lastObservedTime"),
        (None, "") => first,
        (None, text) => text,
    };
    let count = series_count
        .or(int_at(event, "count"))
        .or(int_at(event, "deprecatedCount"))
        .filter(|count| *count > 0)
        .unwrap_or(1);
    let object = match at(event, "involvedObject").or(at(event, "regarding")) {
        None => String::new(),
        Some(object) => {
            format!(
                "{}/{}",
                text_at(object, "kind").to_lowercase(),
                text_at(object, "name")
            )
        }
    };
    let age = |when: &str| Value::from(time::age(Some(when), now));
    vec![
        age(last),
        text_at(event, "type").into(),
        text_at(event, "reason").into(),
        object.into(),
        either("involvedObject.fieldPath", "regarding.fieldPath").into(),
        source(event).into(),
        either("message", "note").trim().into(),
        age(first),
        count.into(),
        text_at(event, "metadata.name").into(),
    ]
}

fn source(event: &Value) -> String {
    let newest = match text_at(event, "reportingComponent") {
        "" => text_at(event, "reportingController"),
        component => component,
    };
    if !newest.is_empty() {
        return match text_at(event, "reportingInstance") {
            "" => newest.to_owned(),
            instance => format!("{newest}, {instance}"),
        };
    }
    let source = at(event, "source").or(at(event, "deprecatedSource"));
    let Some(source) = source else {
        return String::new();
    };
    match (text_at(source, "component"), text_at(source, "host")) {
        (component, "") => component.to_owned(),
        (component, host) => format!("{component}, {host}"),
    }
}

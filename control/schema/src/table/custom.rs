//! Rows of custom resources: the columns that their definition adds.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::custom::{Column, CustomVersion};
use crate::time;

use super::columns::{self, CREATION_DESCRIPTION};
use super::{JsonPath, name};

pub(super) fn definitions(version: &CustomVersion) -> Value {
    let mut all = vec![columns::Column::name().definition()];
    if version.columns.is_empty() {
        all.push(json!({
            "name": "Age",
            "type": "date",
            "format": "",
            "description": CREATION_DESCRIPTION,
            "priority": 0,
        }));
    }
    all.extend(version.columns.iter().map(|column| {
        let description = match column.description.as_str() {
            "" => format!(
                "Custom resource definition column (in JSONPath format): {}",
                column.json_path
            ),
            text => text.to_owned(),
        };
        json!({
            "name": column.name,
            "type": column.kind,
            "format": column.format,
            "description": description,
            "priority": column.priority,
        })
    }));
    all.into()
}

pub(super) fn cells(version: &CustomVersion, object: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![name(object)];
    if version.columns.is_empty() {
        cells.push(super::age(object, now));
    }
    cells.extend(
        version
            .columns
            .iter()
            .map(|column| cell(column, object, now)),
    );
    cells
}

fn cell(column: &Column, object: &Value, now: Timestamp) -> Value {
    let Ok(path) = JsonPath::parse(&column.json_path) else {
        return Value::Null;
    };
    let found = path.find(object);
    let Some(first) = found.first() else {
        return Value::Null;
    };
    match (column.kind.as_str(), first) {
        ("integer", Value::Number(number)) => number
            .as_i64()
            .map_or_else(|| number.as_f64().map(|n| n as i64).into(), Value::from),
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => (*first).clone(),
        ("string", _) => {
            let words: Vec<String> = found.iter().map(|value| shown(value)).collect();
            words.join(",").into()
        }
        ("date", Value::String(text)) if time::parse(text).is_some() => {
            time::age(Some(text), now).into()
        }
        ("date", _) => "<invalid>".into(),
        _ => Value::Null,
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

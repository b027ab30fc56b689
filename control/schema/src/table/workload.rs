//! Rows of Deployments and ReplicaSets.

use jiff::Timestamp;
use serde_json::Value;

use crate::LabelSelector;
use crate::value::{at, int_at, list_at, text_at};

use super::columns::Column;
use super::{age, name, or_none};

const CONTAINERS: Column =
    Column::text("Containers", "Names of each container in the template.").wide();
const IMAGES: Column = Column::text(
    "Images",
    "Images referenced by each container in the template.",
)
.wide();
const SELECTOR: Column = Column::text(
    "Selector",
    "The label query over the pods that belong to it.",
)
.wide();

pub(super) const DEPLOYMENT: &[Column] = &[
    Column::name(),
    Column::text("Ready", "Number of the pod with ready state"),
    Column::number("Up-to-date", "Pods that have the desired template."),
    Column::number(
        "Available",
        "Pods that have been ready for at least minReadySeconds.",
    ),
    Column::age(),
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) const REPLICA_SET: &[Column] = &[
    Column::name(),
    Column::number("Desired", "The number of desired pods."),
    Column::number("Current", "The number of pods that there are."),
    Column::number("Ready", "The number of pods that are ready."),
    Column::age(),
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub(super) fn deployment_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let number = |path: &str| int_at(object, path).unwrap_or(0);
    let ready = format!(
        "{}/{}",
        number("status.readyReplicas"),
        number("spec.replicas")
    );
    let mut cells = vec![
        name(object),
        ready.into(),
        number("status.updatedReplicas").into(),
        number("status.availableReplicas").into(),
        age(object, now),
    ];
    cells.extend(template_cells(object));
    cells
}

pub(super) fn replica_set_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let number = |path: &str| Value::from(int_at(object, path).unwrap_or(0));
    let mut cells = vec![
        name(object),
        number("spec.replicas"),
        number("status.replicas"),
        number("status.readyReplicas"),
        age(object, now),
    ];
    cells.extend(template_cells(object));
    cells
}

fn template_cells(object: &Value) -> [Value; 3] {
    let containers = list_at(object, "spec.template.spec.containers");
    let joined = |key: &str| {
        let words: Vec<&str> = containers.iter().map(|one| text_at(one, key)).collect();
        Value::from(words.join(","))
    };
    let selector = at(object, "spec.selector").and_then(|one| LabelSelector::from_json(one).ok());
    let selector = or_none(selector.map(|one| one.to_string()).unwrap_or_default());
    [joined("name"), joined("image"), selector]
}

//! Which names a CustomResourceDefinition gets among those that are there: its status.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::registry::Registry;
use crate::time;
use crate::value::{at, list_at, text_at};

/// A condition: its status, reason and message.
type Verdict = (&'static str, &'static str, String);

/// The new `status` of a definition among the others (built-in groups have no custom kinds): which of its names are
/// accepted, and whether it is established. Pure: the caller stores the status when it differs.
pub fn names_status(crd: &Value, others: &[&Value], registry: &Registry, now: Timestamp) -> Value {
    let group = text_at(crd, "spec.group");
    let own_name = text_at(crd, "metadata.name");
    let others: Vec<&Value> = others
        .iter()
        .copied()
        .filter(|other| {
            text_at(other, "spec.group") == group && text_at(other, "metadata.name") != own_name
        })
        .collect();
    let taken = Taken::of(&others, registry, group);
    let (accepted, names_verdict) = accept(crd, &taken);
    let was_established = condition(crd, "Established") == Some("True");
    let established: Verdict = match names_verdict.0 {
        "True" => (
            "True",
            "InitialNamesAccepted",
            "the initial names have been accepted".into(),
        ),
        _ if was_established => (
            "True",
            "InitialNamesAccepted",
            "the initial names have been accepted".into(),
        ),
        _ => ("False", "NotAccepted", "not all names are accepted".into()),
    };
    let mut status = crd
        .get("status")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    set_condition(&mut status, "NamesAccepted", names_verdict, now);
    set_condition(&mut status, "Established", established, now);
    status.insert("acceptedNames".into(), accepted);
    Value::Object(status)
}

/// Names that others of the group have.
struct Taken {
    resources: Vec<String>,
    kinds: Vec<String>,
}

impl Taken {
    fn of(others: &[&Value], registry: &Registry, group: &str) -> Taken {
        let mut taken = Taken {
            resources: Vec::new(),
            kinds: Vec::new(),
        };
        for names in others
            .iter()
            .filter_map(|other| at(other, "status.acceptedNames"))
        {
            for key in ["plural", "singular"] {
                taken.resources.push(text_at(names, key).to_owned());
            }
            let short = list_at(names, "shortNames")
                .iter()
                .filter_map(Value::as_str);
            taken.resources.extend(short.map(str::to_owned));
            for key in ["kind", "listKind"] {
                taken.kinds.push(text_at(names, key).to_owned());
            }
        }
        for kind in registry
            .kinds()
            .filter(|kind| !kind.is_custom() && kind.group() == group)
        {
            taken
                .resources
                .extend([kind.plural().to_owned(), kind.singular().to_owned()]);
            taken.resources.extend(kind.short_names().iter().cloned());
            taken
                .kinds
                .extend([kind.kind().to_owned(), kind.list_kind().to_owned()]);
        }
        taken
    }
}

/// The accepted names, and the verdict of the condition. A name that was accepted before stays.
fn accept(crd: &Value, taken: &Taken) -> (Value, Verdict) {
    let mut accepted = at(crd, "status.acceptedNames")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let mut problem: Option<Verdict> = None;
    for (key, reason, pool) in [
        ("plural", "PluralConflict", &taken.resources),
        ("singular", "SingularConflict", &taken.resources),
        ("shortNames", "ShortNamesConflict", &taken.resources),
        ("kind", "KindConflict", &taken.kinds),
        ("listKind", "ListKindConflict", &taken.kinds),
    ] {
        let Some(wanted) = at(crd, &format!("spec.names.{key}")) else {
            accepted.shift_remove(key);
            continue;
        };
        let words: Vec<&str> = match wanted {
            Value::Array(words) => words.iter().filter_map(Value::as_str).collect(),
            word => word.as_str().into_iter().collect(),
        };
        let conflicts: Vec<String> = words
            .iter()
            .filter(|word| pool.iter().any(|one| one == *word))
            .map(|word| format!("{word:?} is already in use"))
            .collect();
        if conflicts.is_empty() {
            accepted.insert(key.to_owned(), wanted.clone());
        } else if accepted.get(key) != Some(wanted) {
            problem = Some(("False", reason, conflicts.join(", ")));
        }
    }
    match at(crd, "spec.names.categories") {
        Some(categories) => accepted.insert("categories".into(), categories.clone()),
        None => accepted.shift_remove("categories"),
    };
    let verdict = problem.unwrap_or(("True", "NoConflicts", "no conflicts found".into()));
    // What a definition must always have, even when nothing was accepted.
    for key in ["plural", "kind"] {
        accepted.entry(key).or_insert_with(|| "".into());
    }
    (Value::Object(accepted), verdict)
}

fn condition<'c>(crd: &'c Value, kind: &str) -> Option<&'c str> {
    let conditions = list_at(crd, "status.conditions");
    let found = conditions.iter().find(|one| text_at(one, "type") == kind)?;
    Some(text_at(found, "status"))
}

fn set_condition(status: &mut Map<String, Value>, kind: &str, verdict: Verdict, now: Timestamp) {
    let slot = status.entry("conditions").or_insert_with(|| json!([]));
    if !slot.is_array() {
        *slot = json!([]);
    }
    let Some(conditions) = slot.as_array_mut() else {
        return;
    };
    let (state, reason, message) = verdict;
    let position = conditions
        .iter()
        .position(|one| text_at(one, "type") == kind);
    let since = match position.map(|index| &conditions[index]) {
        Some(found) if text_at(found, "status") == state => {
            text_at(found, "lastTransitionTime").to_owned()
        }
        _ => time::rfc3339(now),
    };
    let condition = json!({
        "type": kind,
        "status": state,
        "lastTransitionTime": since,
        "reason": reason,
        "message": message,
    });
    match position {
        Some(index) => conditions[index] = condition,
        None => conditions.push(condition),
    }
}

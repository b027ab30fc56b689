//! The simple JSONPath of printer columns: `.a.b`, `['c.d']`, `[0]`, `[*]`, `[?(@.type=="Ready")]`.

use serde_json::Value;

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Key(String),
    /// Negative counts from the end.
    Index(i64),
    All,
    /// Items whose value at the path compares so with the text.
    Filter {
        path: Vec<String>,
        equal: bool,
        value: Value,
    },
}

impl JsonPath {
    /// The error says what is wrong, for a validation message.
    pub(crate) fn parse(text: &str) -> Result<JsonPath, String> {
        if !text.starts_with('.') && !text.starts_with('[') {
            return Err("must be a simple json path starting with .".to_owned());
        }
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('[') {
                let end = closing(after).ok_or("unterminated array")?;
                steps.push(bracket(&after[..end])?);
                rest = &after[end + 1..];
                continue;
            }
            let after = rest
                .strip_prefix('.')
                .ok_or_else(|| format!("unexpected {rest:?}"))?;
            let end = key_end(after);
            match unescaped(&after[..end]) {
                key if key.is_empty() && after.starts_with('[') => {}
                key if key.is_empty() => return Err("empty key in json path".to_owned()),
                key if key == "*" => steps.push(Step::All),
                key => steps.push(Step::Key(key)),
            }
            rest = &after[end..];
        }
        Ok(JsonPath { steps })
    }

    /// Every value at the path.
    pub(crate) fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![value];
        for step in &self.steps {
            found = found.into_iter().flat_map(|one| step.follow(one)).collect();
        }
        found.retain(|one| !one.is_null());
        found
    }
}

impl Step {
    fn follow<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let items = || match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(map) => map.values().collect(),
            _ => Vec::new(),
        };
        match self {
            Step::Key(key) => value.get(key).into_iter().collect(),
            Step::All => items(),
            Step::Index(index) => {
                let Some(list) = value.as_array() else {
                    return Vec::new();
                };
                let len = i64::try_from(list.len()).unwrap_or(i64::MAX);
                let place = if *index < 0 { len + index } else { *index };
                usize::try_from(place)
                    .ok()
                    .and_then(|place| list.get(place))
                    .into_iter()
                    .collect()
            }
            Step::Filter { path, equal, value } => {
                let matches = |item: &&Value| {
                    let found = path.iter().try_fold(*item, |inner, key| inner.get(key));
                    found.is_some_and(|found| (found == value) == *equal)
                };
                items().into_iter().filter(matches).collect()
            }
        }
    }
}

/// Where the bracket that was just opened closes, quotes and inner brackets apart.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (index, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(index),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(inside: &str) -> Result<Step, String> {
    let inside = inside.trim();
    if inside == "*" {
        return Ok(Step::All);
    }
    if let Some(key) = quoted(inside) {
        return Ok(Step::Key(key.to_owned()));
    }
    if let Some(filter) = inside
        .strip_prefix("?(")
        .and_then(|rest| rest.strip_suffix(')'))
    {
        return filter_step(filter);
    }
    inside
        .parse()
        .map(Step::Index)
        .map_err(|_| format!("invalid array index {inside}"))
}

fn filter_step(text: &str) -> Result<Step, String> {
    let (left, equal, right) = match (text.split_once("=="), text.split_once("!=")) {
        (Some((left, right)), _) => (left, true, right),
        (_, Some((left, right))) => (left, false, right),
        _ => return Err(format!("unrecognized filter {text}")),
    };
    let left = left
        .trim()
        .strip_prefix("@.")
        .ok_or_else(|| format!("unrecognized filter {text}"))?;
    let right = right.trim();
    let value = match quoted(right) {
        Some(text) => Value::from(text),
        None => serde_json::from_str(right).map_err(|_| format!("unrecognized value {right}"))?,
    };
    Ok(Step::Filter {
        path: left.split('.').map(str::to_owned).collect(),
        equal,
        value,
    })
}

fn quoted(text: &str) -> Option<&str> {
    ['\'', '"']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
}

/// Where a key after a dot ends; `\.` is a dot inside it.
fn key_end(text: &str) -> usize {
    let mut escaped = false;
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '.' | '[' => return index,
            _ => {}
        }
    }
    text.len()
}

fn unescaped(key: &str) -> String {
    key.replace("\\.", ".")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths() {
        let object = json!({"spec": {"size": 3, "a.b": 1, "list": [1, 2, 3]}, "status": {"conditions": [
            {"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]}});
        for (path, want) in [
            (".spec.size", json!([3])),
            (r".spec.a\.b", json!([1])),
            (".spec['a.b']", json!([1])),
            (".spec.list[0]", json!([1])),
            (".spec.list[-1]", json!([3])),
            (".spec.list[*]", json!([1, 2, 3])),
            (
                r#".status.conditions[?(@.type=="Ready")].status"#,
                json!(["True"]),
            ),
            (
                ".status.conditions[?(@.type!='Ready')].status",
                json!(["False"]),
            ),
            (".nothing.here", json!([])),
        ] {
            let found: Vec<Value> = JsonPath::parse(path)
                .unwrap()
                .find(&object)
                .into_iter()
                .cloned()
                .collect();
            assert_eq!(Value::from(found), want, "{path}");
        }
        for bad in ["spec.a", "", ".a[", ".a[x]", ".a..b", ".a[?(x)]"] {
            assert!(JsonPath::parse(bad).is_err(), "{bad}");
        }
    }
}

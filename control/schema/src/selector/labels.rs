//! Label selectors: `a=b,c!=d,e in (f,g),!h` and `metav1.LabelSelector`.

use std::fmt;

use serde_json::{Map, Value};

use crate::Failure;
use crate::names;
use crate::value::{list_at, map_at, text_at};

/// Requirements on labels that must all hold. Without any, everything matches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

impl LabelSelector {
    /// The query parameter `labelSelector`.
    pub fn parse(text: &str) -> Result<LabelSelector, Failure> {
        let refuse = |problem: String| {
            Failure::bad_request(format!("unable to parse requirement: {problem}"))
        };
        let mut parser = Parser { rest: text };
        let mut requirements = Vec::new();
        loop {
            parser.skip_space();
            if parser.rest.is_empty() {
                break;
            }
            let requirement = parser.requirement().map_err(refuse)?;
            check_requirement(&requirement).map_err(refuse)?;
            requirements.push(requirement);
            parser.skip_space();
            match parser.rest.strip_prefix(',') {
                Some(rest) if !rest.trim().is_empty() => parser.rest = rest,
                Some(_) => {
                    return Err(refuse(
                        "found '', expected: identifier after ','".to_owned(),
                    ));
                }
                None if parser.rest.is_empty() => break,
                None => {
                    return Err(refuse(format!(
                        "found '{}', expected: ',' or 'end of string'",
                        parser.rest
                    )));
                }
            }
        }
        Ok(LabelSelector { requirements })
    }

    /// A `metav1.LabelSelector`; null and empty select everything.
    pub fn from_json(selector: &Value) -> Result<LabelSelector, Failure> {
        let mut requirements = Vec::new();
        for (key, value) in map_at(selector, "matchLabels") {
            let values = vec![value.as_str().unwrap_or("").to_owned()];
            requirements.push(Requirement {
                key: key.to_owned(),
                operator: Operator::In,
                values,
            });
        }
        for expression in list_at(selector, "matchExpressions") {
            let operator = match text_at(expression, "operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(Failure::bad_request(format!(
                        "{other:?} is not a valid label selector operator"
                    )));
                }
            };
            let values = list_at(expression, "values")
                .iter()
                .filter_map(Value::as_str);
            requirements.push(Requirement {
                key: text_at(expression, "key").to_owned(),
                operator,
                values: values.map(str::to_owned).collect(),
            });
        }
        Ok(LabelSelector { requirements })
    }

    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether the object's labels match.
    pub fn matches(&self, object: &Value) -> bool {
        let labels = object
            .get("metadata")
            .and_then(|metadata| metadata.get("labels"));
        self.matches_labels(labels.and_then(Value::as_object))
    }

    pub fn matches_labels(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.requirements.iter().all(|requirement| {
            let found = labels
                .and_then(|labels| labels.get(&requirement.key))
                .and_then(Value::as_str);
            requirement.holds(found)
        })
    }
}

impl Requirement {
    fn holds(&self, found: Option<&str>) -> bool {
        let compare = |ordering: std::cmp::Ordering| {
            let wanted = self
                .values
                .first()
                .and_then(|value| value.parse::<i64>().ok());
            let found = found.and_then(|value| value.parse::<i64>().ok());
            found
                .zip(wanted)
                .is_some_and(|(found, wanted)| found.cmp(&wanted) == ordering)
        };
        match self.operator {
            Operator::In => found.is_some_and(|value| self.values.iter().any(|one| one == value)),
            Operator::NotIn => {
                !found.is_some_and(|value| self.values.iter().any(|one| one == value))
            }
            Operator::Exists => found.is_some(),
            Operator::DoesNotExist => found.is_none(),
            Operator::GreaterThan => compare(std::cmp::Ordering::Greater),
            Operator::LessThan => compare(std::cmp::Ordering::Less),
        }
    }
}

fn check_requirement(requirement: &Requirement) -> Result<(), String> {
    if let Some(problem) = names::qualified_name(&requirement.key).into_iter().next() {
        return Err(format!(
            "<nil>: Invalid value: {:?}: {problem}",
            requirement.key
        ));
    }
    let is_number = matches!(
        requirement.operator,
        Operator::GreaterThan | Operator::LessThan
    );
    for (index, value) in requirement.values.iter().enumerate() {
        if is_number && value.parse::<i64>().is_err() {
            return Err(format!(
                "values[{index}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
            ));
        }
        if let Some(problem) = names::label_value(value).into_iter().next() {
            return Err(format!(
                "values[{index}][{}]: Invalid value: {value:?}: {problem}",
                requirement.key
            ));
        }
    }
    Ok(())
}

struct Parser<'t> {
    rest: &'t str,
}

impl<'t> Parser<'t> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = self.take("!");
        self.skip_space();
        let key = self.word().to_owned();
        if key.is_empty() {
            return Err(format!(
                "found '{}', expected: !, identifier, or ','",
                self.rest
            ));
        }
        if negated {
            return Ok(Requirement {
                key,
                operator: Operator::DoesNotExist,
                values: Vec::new(),
            });
        }
        self.skip_space();
        let operator = if self.take("==") || self.take("=") {
            Operator::In
        } else if self.take("!=") {
            Operator::NotIn
        } else if self.take(">") {
            Operator::GreaterThan
        } else if self.take("<") {
            Operator::LessThan
        } else {
            return self.set_requirement(key);
        };
        self.skip_space();
        Ok(Requirement {
            key,
            operator,
            values: vec![self.word().to_owned()],
        })
    }

    /// What follows a key without a sign: nothing, `in (...)` or `notin (...)`.
    fn set_requirement(&mut self, key: String) -> Result<Requirement, String> {
        if self.rest.is_empty() || self.rest.starts_with(',') {
            return Ok(Requirement {
                key,
                operator: Operator::Exists,
                values: Vec::new(),
            });
        }
        let operator = match self.word() {
            "in" => Operator::In,
            "notin" => Operator::NotIn,
            other => {
                return Err(format!(
                    "found '{other}', expected: in, notin, =, ==, !=, gt, lt"
                ));
            }
        };
        self.skip_space();
        if !self.take("(") {
            return Err(format!("found '{}', expected: '('", self.rest));
        }
        let Some((inside, rest)) = self.rest.split_once(')') else {
            return Err("found '', expected: ',' or ')'".to_owned());
        };
        self.rest = rest;
        let values = inside
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect();
        Ok(Requirement {
            key,
            operator,
            values,
        })
    }

    fn take(&mut self, prefix: &str) -> bool {
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self) -> &'t str {
        let is_end = |c: char| c.is_whitespace() || "=!<>,()".contains(c);
        let end = self.rest.find(is_end).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }
}

/// The text form, as in the scale subresource's `status.selector`.
impl fmt::Display for LabelSelector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&Requirement> = self.requirements.iter().collect();
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        for (index, requirement) in sorted.into_iter().enumerate() {
            if index > 0 {
                out.write_str(",")?;
            }
            let (key, values) = (&requirement.key, requirement.values.join(","));
            match requirement.operator {
                Operator::In if requirement.values.len() == 1 => write!(out, "{key}={values}")?,
                Operator::In => write!(out, "{key} in ({values})")?,
                Operator::NotIn if requirement.values.len() == 1 => write!(out, "{key}!={values}")?,
                Operator::NotIn => write!(out, "{key} notin ({values})")?,
                Operator::Exists => write!(out, "{key}")?,
                Operator::DoesNotExist => write!(out, "!{key}")?,
                Operator::GreaterThan => write!(out, "{key}>{values}")?,
                Operator::LessThan => write!(out, "{key}<{values}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(selector: &str, labels: Value, want: bool) {
        let parsed = LabelSelector::parse(selector).unwrap();
        assert_eq!(
            parsed.matches(&json!({"metadata": {"labels": labels}})),
            want,
            "{selector}"
        );
    }

    #[test]
    fn selections() {
        let labels = json!({"app": "web", "tier": "front", "n": "5"});
        for (selector, want) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app = web , tier = back", false),
            ("app!=web", false),
            ("missing!=x", true),
            ("app in (web, db)", true),
            ("app notin (web)", false),
            ("missing notin (web)", true),
            ("app", true),
            ("!app", false),
            ("!missing", true),
            ("n>4", true),
            ("n<5", false),
            ("app=", false),
            ("kubernetes.io/x", false),
        ] {
            check(selector, labels.clone(), want);
        }
        check("app=", json!({"app": ""}), true);
    }

    #[test]
    fn refused() {
        for text in [
            "=a", "a b", "a in b", "a in (b", "a=b,", "-a=b", "a=b c", "a=-", ",a", "n>x", "a==b=c",
        ] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn objects() {
        let selector = json!({"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]}, {"key": "x", "operator": "DoesNotExist"}]});
        let parsed = LabelSelector::from_json(&selector).unwrap();
        assert_eq!(parsed.to_string(), "app=web,tier in (a,b),!x");
        assert!(parsed.matches(&json!({"metadata": {"labels": {"app": "web", "tier": "b"}}})));
        assert!(!parsed.matches(&json!({"metadata": {}})));
        assert!(
            LabelSelector::from_json(
                &json!({"matchExpressions": [{"key": "a", "operator": "Near"}]})
            )
            .is_err()
        );
    }
}

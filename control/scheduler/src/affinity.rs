//! Which nodes a pod wants: node selector and node affinity.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as wire;

/// Node selector and node affinity together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeAffinity {
    /// All of these labels (`spec.nodeSelector`).
    labels: BTreeMap<String, String>,
    /// One of these terms, if there are any requirements at all.
    required: Option<Vec<Term>>,
    /// Weights 1 to 100 of preferred terms.
    preferred: Vec<(i64, Term)>,
}

/// All requirements of a term must hold; a term without any matches nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Term(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    subject: Subject,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    Label(String),
    Name,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    Above(i64),
    Below(i64),
}

/// A node selector term that is not understood.
#[derive(Debug, thiserror::Error)]
pub enum BadNodeTerm {
    /// The operator is none of In, NotIn, Exists, DoesNotExist, Gt, Lt.
    #[error("{key}: unknown operator {operator:?}")]
    Operator {
        /// Label.
        key: String,
        /// As given.
        operator: String,
    },
    /// Gt and Lt compare with exactly one whole number.
    #[error("{key}: {operator} needs exactly one whole number")]
    Number {
        /// Label.
        key: String,
        /// Gt or Lt.
        operator: String,
    },
    /// Fields other than metadata.name cannot be selected.
    #[error("field {0:?} cannot be selected, only metadata.name")]
    Field(String),
}

impl NodeAffinity {
    pub(crate) fn read(
        labels: &BTreeMap<String, String>,
        affinity: Option<&wire::NodeAffinity>,
    ) -> Result<Self, BadNodeTerm> {
        let required = affinity.and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
        let preferred = affinity.and_then(|a| {
            a.preferred_during_scheduling_ignored_during_execution
                .as_ref()
        });
        Ok(Self {
            labels: labels.clone(),
            required: required
                .map(|selector| {
                    selector
                        .node_selector_terms
                        .iter()
                        .map(Term::read)
                        .collect()
                })
                .transpose()?,
            preferred: preferred
                .into_iter()
                .flatten()
                .map(|term| Ok((i64::from(term.weight), Term::read(&term.preference)?)))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Whether the node is one that the pod accepts.
    pub(crate) fn accepts(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
            && self
                .required
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|term| term.matches(name, labels)))
    }

    /// Sum of the weights of the preferred terms that the node matches.
    pub(crate) fn preference(&self, name: &str, labels: &BTreeMap<String, String>) -> i64 {
        self.preferred
            .iter()
            .filter(|(_, term)| term.matches(name, labels))
            .map(|(weight, _)| weight)
            .sum()
    }
}

impl Term {
    fn read(term: &wire::NodeSelectorTerm) -> Result<Self, BadNodeTerm> {
        let labels = term.match_expressions.iter().flatten().map(|requirement| {
            Ok(Requirement {
                subject: Subject::Label(requirement.key.clone()),
                test: Test::read(requirement)?,
            })
        });
        let fields =
            term.match_fields
                .iter()
                .flatten()
                .map(|requirement| match requirement.key.as_str() {
                    "metadata.name" => Ok(Requirement {
                        subject: Subject::Name,
                        test: Test::read(requirement)?,
                    }),
                    other => Err(BadNodeTerm::Field(other.to_owned())),
                });
        Ok(Self(labels.chain(fields).collect::<Result<_, _>>()?))
    }

    fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        !self.0.is_empty()
            && self.0.iter().all(|requirement| {
                let value = match &requirement.subject {
                    Subject::Label(key) => labels.get(key).map(String::as_str),
                    Subject::Name => Some(name),
                };
                requirement.test.holds(value)
            })
    }
}

impl Test {
    fn read(requirement: &wire::NodeSelectorRequirement) -> Result<Self, BadNodeTerm> {
        let values = || requirement.values.clone().unwrap_or_default();
        let number = || match values().as_slice() {
            [only] => only.parse().ok(),
            _ => None,
        };
        let no_number = || BadNodeTerm::Number {
            key: requirement.key.clone(),
            operator: requirement.operator.clone(),
        };
        Ok(match requirement.operator.as_str() {
            "In" => Self::In(values()),
            "NotIn" => Self::NotIn(values()),
            "Exists" => Self::Exists,
            "DoesNotExist" => Self::DoesNotExist,
            "Gt" => Self::Above(number().ok_or_else(no_number)?),
            "Lt" => Self::Below(number().ok_or_else(no_number)?),
            operator => {
                return Err(BadNodeTerm::Operator {
                    key: requirement.key.clone(),
                    operator: operator.to_owned(),
                });
            }
        })
    }

    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::In(values) => value.is_some_and(|value| values.iter().any(|v| v == value)),
            Self::NotIn(values) => value.is_none_or(|value| values.iter().all(|v| v != value)),
            Self::Exists => value.is_some(),
            Self::DoesNotExist => value.is_none(),
            Self::Above(limit) => number().is_some_and(|number| number > *limit),
            Self::Below(limit) => number().is_some_and(|number| number < *limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Whether a pod with this affinity accepts node `n1` with labels disk=ssd, cores=8.
    fn check(affinity: serde_json::Value, accepted: bool) {
        let wire = serde_json::from_value(affinity.clone()).expect("node affinity");
        let parsed = NodeAffinity::read(&BTreeMap::new(), Some(&wire)).expect("valid");
        let labels = [("disk", "ssd"), ("cores", "8")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        assert_eq!(parsed.accepts("n1", &labels), accepted, "{affinity}");
    }

    fn required(terms: serde_json::Value) -> serde_json::Value {
        json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}})
    }

    fn label(key: &str, operator: &str, values: &[&str]) -> serde_json::Value {
        json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})
    }

    #[test]
    fn requirements() {
        check(json!({}), true);
        check(required(json!([])), false);
        check(required(json!([{}])), false);
        check(
            required(json!([label("disk", "In", &["ssd", "nvme"])])),
            true,
        );
        check(
            required(json!([
                label("disk", "In", &["hdd"]),
                label("disk", "Exists", &[])
            ])),
            true,
        );
        check(required(json!([label("disk", "NotIn", &["ssd"])])), false);
        check(required(json!([label("gpu", "NotIn", &["a"])])), true);
        check(required(json!([label("gpu", "DoesNotExist", &[])])), true);
        check(required(json!([label("cores", "Gt", &["7"])])), true);
        check(required(json!([label("cores", "Lt", &["8"])])), false);
        check(required(json!([label("disk", "Gt", &["1"])])), false);
        let name =
            json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]});
        check(required(json!([name])), true);
    }
}

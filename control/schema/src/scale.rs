//! The scale subresource: one number of an object, in a form that is the same for all kinds.

use serde_json::{Value, json};

use crate::LabelSelector;
use crate::decode::convert;
use crate::registry::Kind;
use crate::types::by_name;
use crate::value::{at, int_at, put_at};

impl Kind {
    /// The `autoscaling/v1` Scale of an object; None when the kind has no such subresource.
    pub fn scale_of(&self, object: &Value) -> Option<Value> {
        let paths = self.scale()?;
        let selector = paths.selector.as_deref().and_then(|path| at(object, path));
        let selector = match selector {
            Some(Value::String(text)) => text.clone(),
            Some(selector) => LabelSelector::from_json(selector).ok()?.to_string(),
            None => String::new(),
        };
        let meta = |key: &str| {
            at(object, &format!("metadata.{key}"))
                .cloned()
                .unwrap_or_default()
        };
        let scale = json!({
            "metadata": {
                "name": meta("name"),
                "namespace": meta("namespace"),
                "uid": meta("uid"),
                "resourceVersion": meta("resourceVersion"),
                "creationTimestamp": meta("creationTimestamp"),
            },
            "spec": {"replicas": int_at(object, &paths.spec_replicas).unwrap_or(0)},
            "status": {
                "replicas": int_at(object, &paths.status_replicas).unwrap_or(0),
                "selector": selector,
            },
        });
        let mut scale = convert(by_name("io.k8s.api.autoscaling.v1.Scale")?, scale)
            .ok()?
            .object;
        let fields = scale.as_object_mut()?;
        fields.shift_insert(0, "kind".into(), "Scale".into());
        fields.shift_insert(1, "apiVersion".into(), "autoscaling/v1".into());
        Some(scale)
    }

    /// The object with the replicas that a written Scale asks for.
    pub fn with_scale(&self, object: &Value, scale: &Value) -> Option<Value> {
        let paths = self.scale()?;
        let mut scaled = object.clone();
        put_at(
            &mut scaled,
            &paths.spec_replicas,
            int_at(scale, "spec.replicas").unwrap_or(0).into(),
        );
        Some(scaled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Registry;

    #[test]
    fn deployments_scale() {
        let registry = Registry::builtin();
        let deployments = registry.resource("apps", "v1", "deployments").unwrap();
        let object = json!({"metadata": {"name": "d", "namespace": "n"}, "spec": {"replicas": 3,
            "selector": {"matchLabels": {"b": "2", "a": "1"}}}, "status": {"replicas": 2}});
        let scale = deployments.scale_of(&object).unwrap();
        assert_eq!(scale["spec"], json!({"replicas": 3}));
        assert_eq!(
            scale["status"],
            json!({"replicas": 2, "selector": "a=1,b=2"})
        );
        let scaled = deployments
            .with_scale(&object, &json!({"spec": {"replicas": 5}}))
            .unwrap();
        assert_eq!(scaled["spec"]["replicas"], 5);
        assert!(
            registry
                .resource("", "v1", "pods")
                .unwrap()
                .scale_of(&object)
                .is_none()
        );
    }
}

//! An Ingress without a class gets the default one.

use serde_json::Value;

use crate::objects::meta;
use crate::server::Server;

const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// The annotation that named classes before the field did.
const LEGACY: &str = "kubernetes.io/ingress.class";

pub(super) fn default(server: &Server, ingress: &mut Value) {
    let has_class = ingress["spec"]
        .get("ingressClassName")
        .is_some_and(|class| !class.is_null())
        || ingress["metadata"]["annotations"].get(LEGACY).is_some();
    if has_class {
        return;
    }
    let classes = server.all("networking.k8s.io", "ingressclasses", "");
    let defaults = classes
        .iter()
        .filter(|class| class["metadata"]["annotations"][DEFAULT] == "true");
    // Several defaults: the newest, then the first by name, as Kubernetes settles it.
    let chosen = defaults.min_by_key(|class| {
        (
            std::cmp::Reverse(meta(class, "creationTimestamp").to_owned()),
            meta(class, "name").to_owned(),
        )
    });
    if let (Some(class), Some(spec)) = (
        chosen,
        ingress.get_mut("spec").and_then(Value::as_object_mut),
    ) {
        spec.insert("ingressClassName".into(), meta(class, "name").into());
    }
}

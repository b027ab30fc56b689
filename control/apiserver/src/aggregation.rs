//! Aggregated ClusterRoles show the rules that they come to.
//!
//! Authorization evaluates them live; this only writes them down for people and clients that read roles.

use std::sync::Arc;

use meshgate_store::Expect;
use serde_json::Value;

use crate::objects::{decode, encode, meta, prefix_of};
use crate::server::Server;

/// Keeps `rules` of aggregated roles up to date. Runs until shutdown.
pub(crate) async fn keep(server: Arc<Server>) {
    let prefix = prefix_of("rbac.authorization.k8s.io", "clusterroles", "");
    loop {
        let from = server.store.revision();
        let Ok(mut watch) = server.store.watch(&prefix, from) else {
            return;
        };
        write_all(&server, &prefix).await;
        tokio::select! {
            () = server.shutdown.cancelled() => return,
            // Any change of any role may change any aggregate; there are few, and they change rarely. A watch that
            // fell behind is opened anew, a closed store ends it at the top.
            _ = watch.next() => {}
        }
    }
}

async fn write_all(server: &Server, prefix: &str) {
    for entry in server.store.range(prefix).entries {
        let Ok(mut role) = decode(&entry) else {
            continue;
        };
        if role.get("aggregationRule").is_none_or(Value::is_null) {
            continue;
        }
        let Some(rules) = server.live.auth.aggregated_rules(meta(&role, "name")) else {
            continue;
        };
        if role["rules"] == rules {
            continue;
        }
        role["rules"] = rules;
        // Changed meanwhile: that change brings us back here.
        let written = server
            .write(
                &entry.key,
                Expect::Unchanged(entry.modified),
                Some(encode(&role)),
            )
            .await;
        if let Err(failure) = written {
            tracing::warn!(key = %entry.key, %failure, "the rules of an aggregated role are not written down");
        }
    }
}

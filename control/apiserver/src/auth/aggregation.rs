//! Writes down what aggregated ClusterRoles come to, for people to read. Decisions do not wait for it: RBAC aggregates
//! within each write ([`Auth::aggregated_rules`](super::Auth::aggregated_rules)).

use std::sync::Arc;

use meshgate_store::Expect;

use super::RBAC_GROUP;
use crate::objects::{decode, encode, meta, prefix_of};
use crate::server::Server;

/// Runs until shutdown.
pub(crate) async fn write_aggregated_rules(server: Arc<Server>) {
    let prefix = prefix_of(RBAC_GROUP, "clusterroles", "");
    loop {
        let snapshot = server.store.range(&prefix);
        let Ok(mut watch) = server.store.watch(&prefix, snapshot.revision) else {
            return;
        };
        write_all(&server, &prefix).await;
        loop {
            let changed = tokio::select! {
                () = server.shutdown.cancelled() => return,
                changed = watch.next() => changed,
            };
            // Fell behind: the next round starts from what is there.
            let Ok(_) = changed else { break };
            write_all(&server, &prefix).await;
        }
    }
}

/// Any role may select any other: each is looked at. There are about a hundred, and they hardly ever change.
async fn write_all(server: &Server, prefix: &str) {
    for entry in server.store.range(prefix).entries {
        let Ok(mut role) = decode(&entry) else {
            continue;
        };
        let rules = server.live.auth.aggregated_rules(meta(&role, "name"));
        let Some(rules) = rules.filter(|rules| role["rules"] != *rules) else {
            continue;
        };
        role["rules"] = rules;
        // A role that changed meanwhile brings us back here.
        let unchanged = Expect::Unchanged(entry.modified);
        if let Err(failure) = server
            .write(&entry.key, unchanged, Some(encode(&role)))
            .await
        {
            tracing::warn!(key = %entry.key, %failure, "the rules of an aggregated role are not written down");
        }
    }
}

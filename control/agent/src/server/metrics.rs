//! A few numbers of the node, in Prometheus' text form.

use std::sync::PoisonError;

use axum::extract::State;
use axum::response::IntoResponse;

use super::Served;

pub(super) async fn metrics(State(served): State<Served>) -> impl IntoResponse {
    let (mut pods, mut containers, mut restarts) = (0_u64, 0_u64, 0_i64);
    {
        let entries = served.pods.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries.values() {
            pods += 1;
            let statuses = entry
                .pod
                .status
                .iter()
                .flat_map(|status| status.container_statuses.iter().flatten());
            for status in statuses {
                containers += u64::from(
                    status
                        .state
                        .as_ref()
                        .is_some_and(|state| state.running.is_some()),
                );
                restarts += i64::from(status.restart_count);
            }
        }
    }
    let text = format!(
        "# HELP meshgate_agent_pods Pods assigned to this node.\n# TYPE meshgate_agent_pods gauge\nmeshgate_agent_pods {pods}\n\
         # HELP meshgate_agent_containers_running Running containers.\n# TYPE meshgate_agent_containers_running gauge\nmeshgate_agent_containers_running {containers}\n\
         # HELP meshgate_agent_container_restarts Restarts of the containers of pods on this node.\n# TYPE meshgate_agent_container_restarts gauge\nmeshgate_agent_container_restarts {restarts}\n"
    );
    ([("content-type", "text/plain; version=0.0.4")], text)
}

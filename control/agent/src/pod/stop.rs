//! Ending a container with grace: preStop, stop signal, time, SIGKILL.

use std::sync::Arc;

use k8s_openapi::api::core::v1::LifecycleHandler;
use tokio::sync::watch;
use tokio::time::Instant;

use super::hooks;
use crate::container::Running;
use crate::probe::Target;

/// Runs until the container has ended. The deadline may move; SIGKILL follows it. The hook's error is returned.
pub(crate) async fn stop(
    running: Arc<Running>,
    pre_stop: Option<LifecycleHandler>,
    target: Target,
    mut deadline: watch::Receiver<Instant>,
) -> Option<String> {
    let mut hook_error = None;
    if let Some(handler) = pre_stop {
        let left = deadline.borrow().saturating_duration_since(Instant::now());
        let hook = hooks::run(&handler, &target, left);
        tokio::select! {
            () = passed(&mut deadline) => {}
            result = hook => hook_error = result.err(),
            // It ended by itself: nothing to do.
            _ = running.exited() => return None,
        }
    }
    running.stop();
    tokio::select! {
        _ = running.exited() => return hook_error,
        () = passed(&mut deadline) => {}
    }
    running.kill();
    running.exited().await;
    hook_error
}

/// Returns when the latest deadline has passed.
async fn passed(deadline: &mut watch::Receiver<Instant>) {
    loop {
        let at = *deadline.borrow_and_update();
        tokio::select! {
            () = tokio::time::sleep_until(at) => return,
            changed = deadline.changed() => {
                if changed.is_err() {
                    // Nobody will move it any more.
                    tokio::time::sleep_until(at).await;
                    return;
                }
            }
        }
    }
}

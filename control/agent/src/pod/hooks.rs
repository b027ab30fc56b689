//! Lifecycle hooks: a command in the container, a request to it, or a pause.

use std::time::Duration;

use k8s_openapi::api::core::v1::LifecycleHandler;

use crate::probe::{Target, http};

/// Runs a hook; the error is what an event says.
pub(crate) async fn run(
    handler: &LifecycleHandler,
    target: &Target,
    timeout: Duration,
) -> Result<(), String> {
    if let Some(sleep) = &handler.sleep {
        let seconds = u64::try_from(sleep.seconds).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(seconds).min(timeout)).await;
        return Ok(());
    }
    if let Some(exec) = &handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        let (code, output) = target
            .exec(&command, timeout)
            .await
            .map_err(|error| error.to_string())?;
        return match code {
            0 => Ok(()),
            code => Err(format!("command exited with {code}: {}", output.trim())),
        };
    }
    if let Some(get) = &handler.http_get {
        return match tokio::time::timeout(timeout, http::get(target, get)).await {
            Ok(result) => result.map(drop),
            Err(_) => Err(format!("no answer within {} s", timeout.as_secs())),
        };
    }
    Ok(())
}

//! Mutating webhooks.
//!
//! Each one whose rules and selectors match is asked in turn; what it patches, the next one sees. A webhook with
//! `reinvocationPolicy: IfNeeded` is asked once more if a later one changed the object after it.
//!
//! The objects that configure webhooks are exempt, so that a broken webhook can always be removed.

mod ask;
mod review;
mod rules;

use std::sync::Arc;

use meshgate_schema::{Failure, FieldValidation};
use serde_json::Value;

use super::Operation;
use crate::server::Call;

pub(crate) use rules::{Webhook, unsupported};

const CONFIGURATION_GROUP: &str = "admissionregistration.k8s.io";

/// One write as webhooks are asked about it.
struct Round<'a> {
    call: &'a Call,
    operation: Operation,
    old: Option<&'a Value>,
    dry_run: bool,
    warnings: &'a mut Vec<String>,
}

/// Asks all webhooks that want to see this write.
pub(super) async fn mutate(
    call: &Call,
    operation: Operation,
    object: &mut Value,
    old: Option<&Value>,
    dry_run: bool,
    warnings: &mut Vec<String>,
) -> Result<(), Failure> {
    let webhooks = call.server.live.webhooks();
    if webhooks.is_empty() || call.kind.group() == CONFIGURATION_GROUP {
        return Ok(());
    }
    let mut round = Round {
        call,
        operation,
        old,
        dry_run,
        warnings,
    };
    let mut changes = 0_usize;
    // Those that want to see later changes, and how many there were when they were asked.
    let mut willing: Vec<(&Arc<Webhook>, usize)> = Vec::new();
    for webhook in webhooks.iter() {
        if webhook.wants(call, operation, object, old) {
            changes += usize::from(round.ask(webhook, object).await?);
            if webhook.reinvoked {
                willing.push((webhook, changes));
            }
        }
    }
    for (webhook, seen) in willing {
        if seen < changes && webhook.wants(call, operation, object, old) {
            changes += usize::from(round.ask(webhook, object).await?);
        }
    }
    Ok(())
}

impl Round<'_> {
    /// Asks one webhook and applies its patch; whether it changed the object.
    async fn ask(&mut self, webhook: &Webhook, object: &mut Value) -> Result<bool, Failure> {
        let request = review::request(self.call, self.operation, object, self.old, self.dry_run);
        let started = std::time::Instant::now();
        let answer = self.exchange(webhook, &request).await;
        self.call
            .server
            .metrics
            .webhook_called(&webhook.name, started.elapsed(), answer.is_ok());
        let answer = match answer {
            Ok(answer) => answer,
            Err(problem) if webhook.ignores_failures => {
                tracing::warn!(
                    webhook = webhook.name,
                    problem,
                    "a webhook failed and is ignored, as it asks for"
                );
                return Ok(false);
            }
            Err(problem) => {
                return Err(Failure::internal(format!(
                    "failed calling webhook {:?}: {problem}",
                    webhook.name
                )));
            }
        };
        self.warnings.extend(answer.warnings);
        if let Some(refusal) = answer.refusal {
            return Err(review::refused(&webhook.name, &refusal));
        }
        let Some(patched) = answer.patched.filter(|patched| patched != object) else {
            return Ok(false);
        };
        // What a webhook adds is defaulted like a client's object, and pruned likewise.
        let mut patched = self
            .call
            .kind
            .decode_value(patched, FieldValidation::Ignore)?
            .object;
        self.call.kind.default(&mut patched);
        *object = patched;
        Ok(true)
    }

    async fn exchange(
        &self,
        webhook: &Webhook,
        request: &review::Request,
    ) -> Result<review::Answer, String> {
        if self.dry_run && webhook.has_side_effects {
            return Err("the webhook does not support dry run (its sideEffects are neither None nor NoneOnDryRun)".into());
        }
        let body = serde_json::to_vec(&request.review).map_err(|error| error.to_string())?;
        let reply =
            tokio::time::timeout(webhook.timeout, ask::post(&self.call.server, webhook, body))
                .await;
        let reply =
            reply.map_err(|_| format!("no answer within {} s", webhook.timeout.as_secs()))??;
        review::answer(request, &reply)
    }
}

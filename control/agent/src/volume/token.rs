//! Service-account tokens of a pod: asked for when first needed, renewed before they end.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

/// Life of a token whose volume says none, in seconds.
const DEFAULT_LIFE_S: i64 = 3600;
/// A token is renewed when it is this old, however long it lives.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// The tokens of one pod by audience and wanted life.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    tokens: HashMap<(String, i64), Token>,
}

#[derive(Debug)]
struct Token {
    value: String,
    refresh_at: Instant,
}

impl Tokens {
    /// A token that is good for a while.
    pub(super) async fn token(
        &mut self,
        client: &kube::Client,
        pod: &Pod,
        audience: Option<&str>,
        life_s: Option<i64>,
    ) -> Result<String, kube::Error> {
        let life_s = life_s.unwrap_or(DEFAULT_LIFE_S);
        let key = (audience.unwrap_or_default().to_owned(), life_s);
        if let Some(token) = self.tokens.get(&key)
            && token.refresh_at > Instant::now()
        {
            return Ok(token.value.clone());
        }
        match request(client, pod, &key.0, life_s).await {
            Ok(token) => {
                let value = token.value.clone();
                self.tokens.insert(key, token);
                Ok(value)
            }
            // The old one is still good for a fifth of its life: better than none.
            Err(error) => match self.tokens.get_mut(&key) {
                Some(token) => {
                    token.refresh_at = Instant::now() + Duration::from_secs(10);
                    tracing::warn!(%error, "token not renewed, trying again in 10 s");
                    Ok(token.value.clone())
                }
                None => Err(error),
            },
        }
    }

    pub(super) fn next_refresh(&self) -> Option<Instant> {
        self.tokens.values().map(|token| token.refresh_at).min()
    }
}

async fn request(
    client: &kube::Client,
    pod: &Pod,
    audience: &str,
    life_s: i64,
) -> Result<Token, kube::Error> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let account = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.service_account_name.as_deref())
        .unwrap_or("default");
    let mut spec = json!({
        "audiences": [],
        "expirationSeconds": life_s,
        "boundObjectRef": {
            "apiVersion": "v1", "kind": "Pod",
            "name": pod.metadata.name, "uid": pod.metadata.uid,
        },
    });
    if !audience.is_empty() {
        spec["audiences"] = json!([audience]);
    }
    let body: TokenRequest =
        serde_json::from_value(json!({"spec": spec})).map_err(kube::Error::SerdeError)?;
    let api = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    let answer = api
        .create_token_request(account, &PostParams::default(), &body)
        .await?;
    let status = answer.status.unwrap_or_default();
    let now = Timestamp::now();
    let ends = status.expiration_timestamp.map_or(now, |time| time.0);
    Ok(Token {
        value: status.token.unwrap_or_default(),
        refresh_at: Instant::now() + refresh_after(ends, now),
    })
}

/// At 80 % of its life, as the kubelet does.
fn refresh_after(ends: Timestamp, now: Timestamp) -> Duration {
    let life = Duration::try_from(ends.duration_since(now)).unwrap_or_default();
    (life * 4 / 5).min(AGE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_before_they_end() {
        let check = |life_s: i64, wanted_s: u64| {
            let now = Timestamp::UNIX_EPOCH;
            let ends = Timestamp::from_second(life_s).expect("in range");
            assert_eq!(refresh_after(ends, now).as_secs(), wanted_s);
        };
        check(3600, 2880);
        check(10 * 24 * 3600, 24 * 3600);
        check(-5, 0);
    }
}

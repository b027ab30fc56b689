//! The injector: puts a sidecar into pods that ask for one. Pure; the webhook and `meshgate inject` call it.

use meshgate_api::names;

/// What goes into every pod alike.
#[derive(Debug, Clone)]
pub struct InjectOptions {
    /// Image of the sidecar.
    pub image: String,
    /// Where it reaches the control plane: "HOST:PORT".
    pub control: String,
    /// SPIFFE trust domain.
    pub trust_domain: String,
}

impl Default for InjectOptions {
    fn default() -> Self {
        Self {
            image: names::SELF_IMAGE.into(),
            control: format!("{}:{}", names::CONTROL_ADDRESS, names::PORT_PUSH),
            trust_domain: names::TRUST_DOMAIN.into(),
        }
    }
}

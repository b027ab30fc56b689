//! JSON Web Tokens, as far as service accounts need them (RFC 7515, 7517, 7519): compact form, ES256 and RS256, one key.
//! Whatever names another algorithm or key is refused before anything of it is looked at.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::RSAPublicKey;

use super::AuthError;

/// Largest token that is looked at; ours have about 1 KiB.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// The key pair of service accounts.
pub(super) struct SigningKey {
    pair: Pair,
    /// Names the key in token headers and in the key set.
    id: String,
}

enum Pair {
    Es256(EcdsaKeyPair),
    Rs256(RsaKeyPair),
}

impl SigningKey {
    pub(super) fn from_pem(pem: &str) -> Result<Self, AuthError> {
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(AuthError::KeyPem)?;
        let pair = pair(&der).ok_or(AuthError::Key)?;
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(pair.public()));
        Ok(Self { pair, id })
    }

    /// The compact form of `claims`, signed.
    pub(super) fn sign(&self, claims: &Value) -> Option<String> {
        let header = json!({"alg": self.pair.algorithm(), "kid": self.id});
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        let payload = URL_SAFE_NO_PAD.encode(claims.to_string());
        let message = format!("{header}.{payload}");
        let signature = self.pair.sign(message.as_bytes())?;
        Some(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a token that this key has signed. Says nothing about time, issuer or audience.
    pub(super) fn verify(&self, token: &str) -> Result<Value, Unverified> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Unverified::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(Unverified::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(Unverified::Malformed)?;
        let header = decode_json(header)?;
        if header.get("alg").and_then(Value::as_str) != Some(self.pair.algorithm()) {
            return Err(Unverified::Algorithm);
        }
        // Extensions that must be understood (RFC 7515 §4.1.11): we understand none.
        if header.get("crit").is_some() {
            return Err(Unverified::Algorithm);
        }
        if header
            .get("kid")
            .is_some_and(|id| id.as_str() != Some(&self.id))
        {
            return Err(Unverified::OtherKey);
        }
        let signature = decode(signature)?;
        if !self.pair.verifies(message.as_bytes(), &signature) {
            return Err(Unverified::Signature);
        }
        decode_json(payload)
    }

    /// The public key as a JSON Web Key Set.
    pub(super) fn key_set(&self) -> Value {
        let mut key = match &self.pair {
            Pair::Es256(pair) => {
                // Uncompressed point: 04, x, y (32 bytes each).
                let point = pair.public_key().as_ref();
                let (x, y) = point[1..].split_at(32);
                json!({
                    "kty": "EC",
                    "crv": "P-256",
                    "x": URL_SAFE_NO_PAD.encode(x),
                    "y": URL_SAFE_NO_PAD.encode(y),
                })
            }
            Pair::Rs256(pair) => {
                let der = pair.public_key().as_ref();
                let number = |bytes: &[u8]| {
                    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
                    URL_SAFE_NO_PAD.encode(&bytes[zeros..])
                };
                match RSAPublicKey::from_der(der) {
                    Ok((_, key)) => {
                        json!({"kty": "RSA", "n": number(key.modulus), "e": number(key.exponent)})
                    }
                    Err(_) => json!({"kty": "RSA"}),
                }
            }
        };
        key["use"] = json!("sig");
        key["kid"] = json!(self.id);
        key["alg"] = json!(self.pair.algorithm());
        json!({"keys": [key]})
    }

    pub(super) fn algorithm(&self) -> &'static str {
        self.pair.algorithm()
    }
}

fn pair(der: &PrivateKeyDer<'_>) -> Option<Pair> {
    let bytes = der.secret_der();
    let ecdsa = match der {
        PrivateKeyDer::Pkcs8(_) => {
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, bytes)
        }
        _ => EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, bytes),
    };
    if let Ok(pair) = ecdsa {
        return Some(Pair::Es256(pair));
    }
    let rsa = match der {
        PrivateKeyDer::Pkcs8(_) => RsaKeyPair::from_pkcs8(bytes),
        _ => RsaKeyPair::from_der(bytes),
    };
    rsa.ok().map(Pair::Rs256)
}

impl Pair {
    fn algorithm(&self) -> &'static str {
        match self {
            Self::Es256(_) => "ES256",
            Self::Rs256(_) => "RS256",
        }
    }

    fn public(&self) -> &[u8] {
        match self {
            Self::Es256(pair) => pair.public_key().as_ref(),
            Self::Rs256(pair) => pair.public_key().as_ref(),
        }
    }

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Self::Es256(pair) => Some(pair.sign(&random, message).ok()?.as_ref().to_vec()),
            Self::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .ok()?;
                Some(signature)
            }
        }
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Es256(_) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.public())
                .verify(message, signature),
            Self::Rs256(_) => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, self.public())
                .verify(message, signature),
        }
        .is_ok()
    }
}

fn decode(part: &str) -> Result<Vec<u8>, Unverified> {
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| Unverified::Malformed)
}

fn decode_json(part: &str) -> Result<Value, Unverified> {
    match serde_json::from_slice(&decode(part)?) {
        Ok(value @ Value::Object(_)) => Ok(value),
        _ => Err(Unverified::Malformed),
    }
}

/// Why a token is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unverified {
    #[error("not a signed token")]
    Malformed,
    #[error("signed with an algorithm that is not accepted")]
    Algorithm,
    #[error("signed with an unknown key")]
    OtherKey,
    #[error("the signature is wrong")]
    Signature,
}

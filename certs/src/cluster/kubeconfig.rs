//! Kubeconfig files with everything embedded, so that one file is one identity.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub(super) struct Kubeconfig<'a> {
    pub(super) cluster: &'a str,
    pub(super) url: &'a str,
    pub(super) ca_pem: &'a str,
    pub(super) user: &'a str,
    pub(super) cert_pem: &'a str,
    pub(super) key_pem: &'a str,
}

impl Kubeconfig<'_> {
    pub(super) fn to_yaml(&self) -> String {
        let cluster = quoted(self.cluster);
        let user = quoted(self.user);
        let url = quoted(self.url);
        let ca = STANDARD.encode(self.ca_pem);
        let cert = STANDARD.encode(self.cert_pem);
        let key = STANDARD.encode(self.key_pem);
        format!(
            "apiVersion: v1
kind: Config
clusters:
- name: {cluster}
  cluster:
    server: {url}
    certificate-authority-data: {ca}
users:
- name: {user}
  user:
    client-certificate-data: {cert}
    client-key-data: {key}
contexts:
- name: {cluster}
  context:
    cluster: {cluster}
    user: {user}
current-context: {cluster}
"
        )
    }
}

/// A YAML double-quoted scalar: names come from the command line.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_cannot_break_out_of_their_quotes() {
        assert_eq!(super::quoted("a\"b\\c\nd"), r#""a\"b\\c\u000ad""#);
    }
}

//! The forms of names: RFC 1123, RFC 1035, label keys and values. Each function returns what is wrong, in the real
//! server's words; nothing is wrong when the list is empty.

const LABEL_LEN_MAX: usize = 63;
const SUBDOMAIN_LEN_MAX: usize = 253;
/// Of a generated name the base keeps this many bytes: 63 less five random ones.
const GENERATED_BASE_LEN_MAX: usize = 58;

const LABEL_FORM: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN_FORM: &str = r"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const WILDCARD_FORM: &str = r"a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035_FORM: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_PART_FORM: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const QUALIFIED_FORM: &str = "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
const LABEL_VALUE_FORM: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY_FORM: &str = r"a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const ENV_NAME_FORM: &str = "a valid environment variable name must consist only of printable ASCII characters other than '='";

/// A DNS label as RFC 1123 has it: at most 63 of lower-case letters, digits and inner dashes.
pub fn dns1123_label(name: &str) -> Vec<String> {
    let mut problems = too_long(name, LABEL_LEN_MAX);
    if is_subdomain(name) && !is_label(name) {
        problems.push("must not contain dots".to_owned());
    } else if !is_label(name) {
        problems.push(LABEL_FORM.to_owned());
    }
    problems
}

/// DNS labels joined by dots, at most 253 bytes.
pub fn dns1123_subdomain(name: &str) -> Vec<String> {
    let mut problems = too_long(name, SUBDOMAIN_LEN_MAX);
    if !is_subdomain(name) {
        problems.push(SUBDOMAIN_FORM.to_owned());
    }
    problems
}

/// `*.` and a subdomain.
pub fn wildcard_subdomain(name: &str) -> Vec<String> {
    let mut problems = too_long(name, SUBDOMAIN_LEN_MAX);
    if !name.strip_prefix("*.").is_some_and(is_subdomain) {
        problems.push(WILDCARD_FORM.to_owned());
    }
    problems
}

/// A DNS label as RFC 1035 has it: starts with a letter.
pub fn dns1035_label(name: &str) -> Vec<String> {
    let mut problems = too_long(name, LABEL_LEN_MAX);
    if !is_label(name) || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        problems.push(LABEL_1035_FORM.to_owned());
    }
    problems
}

/// A name that is one segment of a URL path.
pub fn path_segment(name: &str) -> Vec<String> {
    if name == "." || name == ".." {
        return vec![format!("may not be '{name}'")];
    }
    ["/", "%"]
        .into_iter()
        .filter(|part| name.contains(part))
        .map(|part| format!("may not contain '{part}'"))
        .collect()
}

/// A label key: a name with an optional DNS prefix.
pub fn qualified_name(key: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let name = match key.split_once('/') {
        None => key,
        Some((prefix, name)) if !name.contains('/') => {
            if prefix.is_empty() {
                problems.push("prefix part must be non-empty".to_owned());
            } else {
                problems.extend(
                    dns1123_subdomain(prefix)
                        .into_iter()
                        .map(|text| format!("prefix part {text}")),
                );
            }
            name
        }
        Some(_) => return vec![QUALIFIED_FORM.to_owned()],
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_LEN_MAX {
        problems.push(format!(
            "name part must be no more than {LABEL_LEN_MAX} bytes"
        ));
    }
    if !is_qualified_part(name) {
        problems.push(format!("name part {QUALIFIED_PART_FORM}"));
    }
    problems
}

/// The value of a label; may be empty.
pub fn label_value(value: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if value.len() > LABEL_LEN_MAX {
        problems.push(format!("must be no more than {LABEL_LEN_MAX} bytes"));
    }
    if !value.is_empty() && !is_qualified_part(value) {
        problems.push(LABEL_VALUE_FORM.to_owned());
    }
    problems
}

/// A key of a ConfigMap or Secret, which becomes a file's name.
pub fn config_key(key: &str) -> Vec<String> {
    let mut problems = too_long(key, SUBDOMAIN_LEN_MAX);
    if key.is_empty()
        || !key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    {
        problems.push(CONFIG_KEY_FORM.to_owned());
    }
    if key == "." || key == ".." {
        problems.push(format!("must not be '{key}'"));
    } else if key.starts_with("..") {
        problems.push("must not start with '..'".to_owned());
    }
    problems
}

/// The name of an environment variable.
pub fn env_name(name: &str) -> Vec<String> {
    if name.is_empty() || !name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=') {
        return vec![ENV_NAME_FORM.to_owned()];
    }
    Vec::new()
}

/// The name of a port: at most 15 letters, digits and single dashes, with at least one letter.
pub fn port_name(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if name.len() > 15 {
        problems.push("must be no more than 15 characters".to_owned());
    }
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !name.bytes().all(allowed) {
        problems.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        problems.push("must contain at least one letter (a-z)".to_owned());
    }
    if name.contains("--") {
        problems.push("must not contain consecutive hyphens".to_owned());
    }
    if name.starts_with('-') || name.ends_with('-') {
        problems.push("must not begin or end with a hyphen".to_owned());
    }
    problems
}

/// A name from `generateName`: the base, cut so that the whole fits a label, and five random characters.
pub fn generate(base: &str, random: &str) -> String {
    let mut end = base.len().min(GENERATED_BASE_LEN_MAX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{random}", &base[..end])
}

fn too_long(name: &str, bytes_max: usize) -> Vec<String> {
    if name.len() > bytes_max {
        vec![format!("must be no more than {bytes_max} characters")]
    } else {
        Vec::new()
    }
}

fn is_label(name: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
}

fn is_subdomain(name: &str) -> bool {
    !name.is_empty() && name.split('.').all(is_label)
}

fn is_qualified_part(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        type Form = fn(&str) -> Vec<String>;
        let long = "a".repeat(64);
        let check = |form: Form, fine: &[&str], bad: &[&str]| {
            for name in fine {
                assert_eq!(form(name), Vec::<String>::new(), "{name}");
            }
            for name in bad {
                assert!(!form(name).is_empty(), "{name}");
            }
        };
        check(
            dns1123_label,
            &["a", "a-1", "1"],
            &["", "A", "-a", "a-", "a.b", &long],
        );
        check(dns1123_subdomain, &["a.b", "a"], &["", "a..b", ".a", "a_b"]);
        check(dns1035_label, &["a1"], &["1a", ""]);
        check(wildcard_subdomain, &["*.a.b"], &["*", "a.*.b", "*a"]);
        check(
            qualified_name,
            &["a", "a.b/C_d", "X"],
            &["", "/a", "a/", "a/b/c", "-a", "A/b"],
        );
        check(label_value, &["", "a_B.c"], &["-", "a b", &long]);
        check(
            config_key,
            &["a", ".dockerconfigjson", "A_b-c"],
            &["", "a/b", "..", "..a"],
        );
        check(
            port_name,
            &["http", "h-1"],
            &["1", "-a", "a--b", "HTTP", "aaaaaaaaaaaaaaaa"],
        );
        check(path_segment, &["a:b", "system:node"], &["..", "a/b", "a%b"]);
    }

    #[test]
    fn generated() {
        assert_eq!(generate("gen-", "abcde"), "gen-abcde");
        assert_eq!(generate(&"a".repeat(100), "abcde").len(), 63);
    }
}

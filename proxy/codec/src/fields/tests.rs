//! What can be done to fields, as texts before and after.

use proptest::prelude::*;

use super::*;

fn fields(text: &str) -> Fields {
    let mut fields = Fields::default();
    for line in text.split('|').filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once('=').expect("name=value");
        fields.append(name, value.as_bytes()).expect(line);
    }
    fields
}

fn text(fields: &Fields) -> String {
    let line = |field: Field<'_>| {
        let name = String::from_utf8_lossy(field.name);
        format!("{name}={}", String::from_utf8_lossy(field.value))
    };
    fields.iter().map(line).collect::<Vec<_>>().join("|")
}

/// Does something; the written lines must tell the same as the entries.
fn check(before: &str, change: impl FnOnce(&mut Fields), after: &str) {
    let mut fields = fields(before);
    change(&mut fields);
    assert_eq!(text(&fields), after, "{before}");
    let mut lines = Vec::new();
    fields.write_lines(KnownSet::EMPTY, &mut lines);
    let expected: String = after
        .split('|')
        .filter(|line| !line.is_empty())
        .map(|line| format!("{}\r\n", line.replacen('=', ": ", 1)))
        .collect();
    assert_eq!(String::from_utf8_lossy(&lines), expected);
    assert_eq!(fields.bytes(), lines.len());
    for known in Known::ALL {
        let present = fields.iter().any(|field| field.known == Some(*known));
        assert_eq!(fields.contains(*known), present, "{known:?}");
    }
}

#[test]
fn fields_keep_their_order_and_case() {
    check("Host=a|X-a=1|x-A=2", |_| {}, "host=a|X-a=1|x-A=2");
    check("a= 1\t", |_| {}, "a=1");
    check("a=1|b=2|a=3", |f| assert_eq!(f.remove("A"), 2), "b=2");
    check("via=1|b=2|Via=3", |f| assert_eq!(f.remove("Via"), 2), "b=2");
    check("b=2", |f| assert_eq!(f.remove(Known::Via), 0), "b=2");
    check("a=1|b=2|A=3", |f| f.set("a", b"9").unwrap(), "a=9|b=2");
    check("b=2", |f| f.set("a", b"9").unwrap(), "b=2|a=9");
    check(
        "host=1|b=2|HOST=3",
        |f| f.set(Known::Host, b"9").unwrap(),
        "host=9|b=2",
    );
    let written = |f: &mut Fields| {
        f.set_with("b", |value| _ = value.text(" 1 ").text("2\t"))
            .unwrap()
    };
    check("a=1", written, "a=1|b=1 2");
    check("b=1|a=1|B=3", written, "b=1 2|a=1");
    check(
        "via=1|a=2|via=3",
        |f| {
            f.set_with(Known::Via, |value| _ = value.bytes(b"x"))
                .unwrap()
        },
        "via=x|a=2",
    );
    check(
        "a=1|via=2",
        |f| f.append_all(&fields("host=3|B=4|via=5")).unwrap(),
        "a=1|via=2|host=3|B=4|via=5",
    );
    check(
        "a=1",
        |f| {
            let write = |value: &mut Value<'_>| {
                _ = value
                    .octet(0)
                    .mark('-')
                    .octet(0xaf)
                    .mark('\u{e4}')
                    .mark(' ')
            };
            f.set_with("b", write).unwrap();
        },
        "a=1|b=00-af\u{e4}",
    );
    check("a=1|b=2", |f| f.retain(|field| field.value != b"1"), "b=2");
    check(
        "te=1|via=2|a=3",
        |f| f.remove_all(KnownSet::of(&[Known::Te, Known::Via])),
        "a=3",
    );
    check("a=1|via=2", Fields::clear, "");
}

#[test]
fn lookups_regard_every_line_and_no_case() {
    let fields = fields("Connection=close, X-a|x-b=1|connection=,Upgrade ,|X-B=2");
    assert_eq!(fields.get("X-b"), Some(&b"1"[..]));
    assert_eq!(fields.all("x-B").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!(fields.count(Known::Connection), 2);
    assert!(fields.has_token(Known::Connection, "upgrade"));
    assert!(fields.has_token("connection", "x-A"));
    assert!(!fields.has_token(Known::Connection, "x"));
    assert!(!fields.has_token(Known::Connection, ""));
    assert_eq!(fields.get(Known::Host), None);
    assert_eq!(fields.all(Known::Host).count(), 0);
    assert!(!fields.contains("x-c") && fields.contains("x-b"));
}

#[test]
fn what_could_be_read_as_more_is_refused() {
    let mut fields = Fields::default();
    for (name, value, error) in [
        ("", "1", FieldError::BadName),
        ("a b", "1", FieldError::BadName),
        ("a:", "1", FieldError::BadName),
        ("a\r\nb", "1", FieldError::BadName),
        ("a", "1\r\nb: 2", FieldError::BadValue),
        ("a", "1\n", FieldError::BadValue),
        ("a", "\0", FieldError::BadValue),
        ("a", "1\x7f", FieldError::BadValue),
        ("a", &"x".repeat(70_000), FieldError::TooLong),
    ] {
        assert_eq!(
            fields.append(name, value.as_bytes()),
            Err(error),
            "{name:?}"
        );
        assert_eq!(fields.set(name, value.as_bytes()), Err(error), "{name:?}");
        let written = fields.set_with(name, |place| _ = place.text(value));
        assert_eq!(written, Err(error), "{name:?}");
    }
    assert!(fields.is_empty());
    let full = (0..20).find(|_| fields.append("a", &[b'x'; 60_000]).is_err());
    assert_eq!(full, Some(17));
}

#[test]
fn secrets_are_not_shown() {
    let fields =
        fields("Authorization=s3|Cookie=s3|set-cookie=s3|Proxy-Authorization=s3|a=b\t\u{e4}");
    let shown = format!("{fields:?}");
    assert!(!shown.contains("s3"), "{shown}");
    assert!(shown.contains("a: b\\t\\xc3\\xa4"), "{shown}");
}

#[derive(Clone, Debug)]
enum Change {
    Append(&'static str, u8),
    Set(&'static str, u8),
    Remove(&'static str),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let name = prop::sample::select(vec!["host", "Via", "x-a", "X-B", "TE", "Cookie"]);
    let change = prop_oneof![
        (name.clone(), 0..9_u8).prop_map(|(name, value)| Change::Append(name, value)),
        (name.clone(), 0..9_u8).prop_map(|(name, value)| Change::Set(name, value)),
        name.prop_map(Change::Remove),
    ];
    prop::collection::vec(change, 0..30)
}

proptest! {
    /// Against the simplest model there is.
    #[test]
    fn behaves_like_a_list(changes in changes()) {
        let mut fields = Fields::default();
        let mut model: Vec<(&str, u8)> = Vec::new();
        for change in changes {
            match change {
                Change::Append(name, value) => {
                    fields.append(name, &[b'0' + value]).unwrap();
                    model.push((name, value));
                }
                Change::Set(name, value) => {
                    fields.set(name, &[b'0' + value]).unwrap();
                    match model.iter().position(|(old, _)| *old == name) {
                        None => model.push((name, value)),
                        Some(first) => {
                            let mut index = 0;
                            model.retain(|(old, _)| {
                                index += 1;
                                *old != name || index == first + 1
                            });
                            model[first] = (name, value);
                        }
                    }
                }
                Change::Remove(name) => {
                    let count = model.iter().filter(|(old, _)| *old == name).count();
                    prop_assert_eq!(fields.remove(name), count);
                    model.retain(|(old, _)| *old != name);
                }
            }
        }
        let found: Vec<(Name<'_>, u8)> = fields
            .iter()
            .map(|field| (Name::from(std::str::from_utf8(field.name).unwrap()), field.value[0] - b'0'))
            .collect();
        let expected: Vec<(Name<'_>, u8)> =
            model.iter().map(|(name, value)| (Name::from(*name), *value)).collect();
        prop_assert_eq!(found, expected);
    }
}

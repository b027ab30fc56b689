//! JSON and YAML text to values, keeping an eye on keys that are written twice.

use std::cell::RefCell;
use std::fmt;

use serde::Deserializer;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A parsed text and the paths of keys that it repeats (the last one counts).
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) value: Value,
    pub(crate) duplicates: Vec<String>,
}

pub(crate) fn parse_json(text: &[u8]) -> Result<Parsed, String> {
    let notes = Notes::default();
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Seed { notes: &notes }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| match error.classify() {
            serde_json::error::Category::Eof => "unexpected end of JSON input".to_owned(),
            _ => error.to_string(),
        })?;
    Ok(Parsed {
        value,
        duplicates: notes.duplicates.into_inner(),
    })
}

/// Opening brackets that may be waiting for their end. The YAML parser's time grows with the square of the nesting, so
/// what the recursion limit would refuse later is refused before: 3 MB of `[` would keep it busy for an hour. Brackets
/// inside of strings count too, which is of no matter at this size.
const YAML_BRACKETS_MAX: usize = 1024;

pub(crate) fn parse_yaml(text: &[u8]) -> Result<Parsed, String> {
    if open_brackets_max(text) > YAML_BRACKETS_MAX {
        return Err("recursion limit exceeded".into());
    }
    let notes = Notes::default();
    let deserializer = serde_norway::Deserializer::from_slice(text);
    let value = Seed { notes: &notes }
        .deserialize(deserializer)
        .map_err(|e| e.to_string())?;
    Ok(Parsed {
        value,
        duplicates: notes.duplicates.into_inner(),
    })
}

fn open_brackets_max(text: &[u8]) -> usize {
    let mut open = 0_usize;
    let mut most = 0;
    for byte in text {
        match byte {
            b'[' | b'{' => {
                open += 1;
                most = most.max(open);
            }
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
    }
    most
}

#[derive(Default)]
struct Notes {
    path: RefCell<String>,
    duplicates: RefCell<Vec<String>>,
}

impl Notes {
    /// Runs `inside` with the path extended by a step.
    fn within<T>(&self, step: impl fmt::Display, inside: impl FnOnce() -> T) -> T {
        let len_before = self.path.borrow().len();
        {
            let mut path = self.path.borrow_mut();
            let step = step.to_string();
            if len_before > 0 && !step.starts_with('[') {
                path.push('.');
            }
            path.push_str(&step);
        }
        let result = inside();
        self.path.borrow_mut().truncate(len_before);
        result
    }

    fn duplicate(&self, key: &str) {
        self.within(key, || {
            self.duplicates
                .borrow_mut()
                .push(self.path.borrow().clone())
        });
    }
}

#[derive(Clone, Copy)]
struct Seed<'n> {
    notes: &'n Notes,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        // 1e3 is the whole number 1000 for every client of the API.
        const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
        if value.fract() == 0.0 && value.abs() <= EXACT_MAX {
            return Ok((value as i64).into());
        }
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number that JSON cannot write"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let step = format_args!("[{}]", list.len()).to_string();
            match self.notes.within(step, || items.next_element_seed(self))? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key_seed(KeySeed)? {
            let value = self.notes.within(&key, || entries.next_value_seed(self))?;
            if map.contains_key(&key) {
                self.notes.duplicate(&key);
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// YAML allows any scalar as a key; JSON has only text.
struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = String;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a key")
    }

    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }

    fn visit_string<E>(self, value: String) -> Result<String, E> {
        Ok(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn duplicates_are_named_and_the_last_counts() {
        let text = br#"{"a":1,"b":[{"c":1,"c":2}],"a":3}"#;
        let parsed = parse_json(text).unwrap();
        assert_eq!(parsed.value, json!({"a": 3, "b": [{"c": 2}]}));
        assert_eq!(parsed.duplicates, ["b[0].c", "a"]);
        let parsed = parse_yaml(b"a: 1\nb: {x: 1, x: 2}\n").unwrap();
        assert_eq!(parsed.value, json!({"a": 1, "b": {"x": 2}}));
        assert_eq!(parsed.duplicates, ["b.x"]);
    }

    #[test]
    fn forms() {
        assert_eq!(
            parse_yaml(b"1: x\ntrue: y\nn: ~\n").unwrap().value,
            json!({"1": "x", "true": "y", "n": null})
        );
        assert_eq!(
            parse_json(b"[1e3, 1.5, -0.0, 9007199254740993]")
                .unwrap()
                .value,
            json!([1000, 1.5, 0, 9007199254740993_i64])
        );
        assert_eq!(
            parse_json(b"{\"a\": ").unwrap_err(),
            "unexpected end of JSON input"
        );
        assert_eq!(parse_json(b"").unwrap_err(), "unexpected end of JSON input");
        assert!(parse_json(b"{} x").is_err());
        assert!(parse_json(&[b'['; 1000]).is_err(), "depth is limited");
    }
}

//! The built-in types: their fields in declared order, protobuf numbers, merge keys and what is left out when empty.
//!
//! The facts are one committed text (`types.txt`), read once into a compact table on first use.

use std::collections::HashMap;
use std::sync::OnceLock;

const FACTS: &str = include_str!("types.txt");

/// Index of a type in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TypeId(u16);

/// One struct of the Kubernetes API.
#[derive(Debug)]
pub(crate) struct Type {
    /// Schema name: `io.k8s.api.core.v1.Pod`.
    pub(crate) name: &'static str,
    /// In declared order, which is also the order in which a real server writes them.
    pub(crate) fields: Vec<Field>,
}

#[derive(Debug)]
pub(crate) struct Field {
    /// The JSON name; `-` for an inline struct.
    pub(crate) name: &'static str,
    /// The protobuf number; 0 for what only JSON carries (apiVersion, kind).
    pub(crate) number: u32,
    pub(crate) shape: Shape,
    pub(crate) presence: Presence,
    /// Flat in JSON, a nested message in protobuf.
    pub(crate) inline: bool,
    pub(crate) merge: Merge,
    /// Whether a patch may name the only keys to keep (`$retainKeys`).
    pub(crate) retain_keys: bool,
    pub(crate) list: ListType,
    /// The closed set of values, separated by `|`; empty where any value goes.
    pub(crate) enum_values: &'static str,
}

/// What the JSON value of a field looks like.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    String,
    Bool,
    Int32,
    Int64,
    Float,
    Bytes,
    Time,
    MicroTime,
    Duration,
    Quantity,
    IntOrString,
    /// Any object, kept as it is.
    RawExtension,
    /// The set of field paths in managedFields.
    FieldsV1,
    /// Any JSON value.
    Json,
    SchemaOrBool,
    SchemaOrArray,
    SchemaOrStrings,
    Object(TypeId),
    List(Box<Shape>),
    Map(Box<Shape>),
}

/// When a real server leaves the field out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Left out when unset; a zero value is kept.
    Pointer,
    /// Null when unset.
    Nullable,
    /// Left out when zero or empty.
    OmitEmpty,
    /// Never left out.
    Always,
}

/// How a strategic merge patch treats a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merge {
    Replace,
    /// A set of scalars.
    Scalars,
    /// Items are the same when this key is.
    ByKey(&'static str),
}

/// `x-kubernetes-list-type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListType {
    Unsaid,
    Atomic,
    Set,
    /// Keys separated by commas.
    Map(&'static str),
}

struct Table {
    types: Vec<Type>,
    by_name: HashMap<&'static str, TypeId>,
}

/// The type of that schema name.
pub(crate) fn by_name(name: &str) -> Option<TypeId> {
    table().by_name.get(name).copied()
}

impl TypeId {
    pub(crate) fn get(self) -> &'static Type {
        // Ids are only made by `by_name` and by reading the table itself.
        &table().types[usize::from(self.0)]
    }
}

impl Type {
    /// The Go name of the type, as in decoding errors: `Container`.
    pub(crate) fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// The field of that JSON name, looking into inline structs too.
    pub(crate) fn field(&self, name: &str) -> Option<&'static Field>
    where
        Self: 'static,
    {
        field_of(by_name(self.name)?.get(), name)
    }

    /// Every field as JSON sees it: inline structs replaced by their own fields.
    pub(crate) fn flat_fields(&'static self) -> Vec<&'static Field> {
        let mut flat = Vec::with_capacity(self.fields.len());
        for field in &self.fields {
            match &field.shape {
                Shape::Object(inner) if field.inline => flat.extend(inner.get().flat_fields()),
                _ => flat.push(field),
            }
        }
        flat
    }
}

fn field_of(owner: &'static Type, name: &str) -> Option<&'static Field> {
    owner.fields.iter().find_map(|field| match &field.shape {
        Shape::Object(inner) if field.inline => field_of(inner.get(), name),
        _ => (field.name == name).then_some(field),
    })
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(read_table)
}

fn read_table() -> Table {
    let lines = || FACTS.lines().filter(|line| !line.starts_with('#'));
    let names = lines().filter(|line| !line.starts_with(' ') && !line.is_empty());
    let by_name: HashMap<_, _> = names
        .zip(0u16..)
        .map(|(name, index)| (name, TypeId(index)))
        .collect();
    let mut types: Vec<Type> = Vec::with_capacity(by_name.len());
    for line in lines() {
        match line.strip_prefix(' ') {
            None if line.is_empty() => {}
            None => types.push(Type {
                name: line,
                fields: Vec::new(),
            }),
            Some(field) => {
                if let (Some(owner), Some(field)) = (types.last_mut(), read_field(field, &by_name))
                {
                    owner.fields.push(field);
                }
            }
        }
    }
    Table { types, by_name }
}

fn read_field(line: &'static str, by_name: &HashMap<&'static str, TypeId>) -> Option<Field> {
    let mut words = line.split(' ');
    let (name, number, shape) = (words.next()?, words.next()?, words.next()?);
    let mut field = Field {
        name,
        number: number.parse().ok()?,
        shape: read_shape(shape, by_name)?,
        presence: Presence::OmitEmpty,
        inline: false,
        merge: Merge::Replace,
        retain_keys: false,
        list: ListType::Unsaid,
        enum_values: "",
    };
    for flag in words {
        match flag.split_once(':') {
            None => match flag {
                "*" => field.presence = Presence::Pointer,
                "*!" => field.presence = Presence::Nullable,
                "!" => field.presence = Presence::Always,
                "inline" => field.inline = true,
                "merge" => field.merge = Merge::Scalars,
                "retainKeys" => field.retain_keys = true,
                "set" => field.list = ListType::Set,
                "atomic" => field.list = ListType::Atomic,
                _ => {}
            },
            Some(("merge", key)) => field.merge = Merge::ByKey(key),
            Some(("map", keys)) => field.list = ListType::Map(keys),
            Some(("enum", values)) => field.enum_values = values,
            Some(_) => {}
        }
    }
    Some(field)
}

fn read_shape(word: &'static str, by_name: &HashMap<&'static str, TypeId>) -> Option<Shape> {
    if let Some(item) = word.strip_prefix("[]") {
        return Some(Shape::List(Box::new(read_shape(item, by_name)?)));
    }
    if let Some(value) = word.strip_prefix("map:") {
        return Some(Shape::Map(Box::new(read_shape(value, by_name)?)));
    }
    Some(match word {
        "string" => Shape::String,
        "bool" => Shape::Bool,
        "int32" => Shape::Int32,
        "int64" => Shape::Int64,
        "float64" => Shape::Float,
        "bytes" => Shape::Bytes,
        "Time" => Shape::Time,
        "MicroTime" => Shape::MicroTime,
        "Duration" => Shape::Duration,
        "Quantity" => Shape::Quantity,
        "IntOrString" => Shape::IntOrString,
        "RawExtension" => Shape::RawExtension,
        "FieldsV1" => Shape::FieldsV1,
        "JSON" => Shape::Json,
        "SchemaOrBool" => Shape::SchemaOrBool,
        "SchemaOrArray" => Shape::SchemaOrArray,
        "SchemaOrStrings" => Shape::SchemaOrStrings,
        name => Shape::Object(by_name.get(name).copied()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every line of the committed facts is understood: a field that is not would silently be pruned.
    #[test]
    fn every_line_is_read() {
        let lines = FACTS.lines().filter(|line| line.starts_with(' ')).count();
        let fields: usize = table().types.iter().map(|one| one.fields.len()).sum();
        assert_eq!(lines, fields);
        assert!(table().types.len() > 250);
    }

    #[test]
    fn facts_of_known_fields() {
        let container = by_name("io.k8s.api.core.v1.Container").unwrap().get();
        let ports = container.field("ports").unwrap();
        assert_eq!(ports.merge, Merge::ByKey("containerPort"));
        assert_eq!(ports.list, ListType::Map("containerPort,protocol"));
        assert_eq!(
            container.field("resources").unwrap().presence,
            Presence::Always
        );
        let probe = by_name("io.k8s.api.core.v1.Probe").unwrap().get();
        assert!(probe.field("httpGet").is_some(), "inline fields are found");
        assert_eq!(probe.short_name(), "Probe");
    }
}

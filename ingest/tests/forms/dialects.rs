//! Five serialisers of audit events that know nothing of forms, and a hand-written template for
//! each of them.
//!
//! Three use `serde_json` and `chrono`, two have their own code. Templates are assembled from the
//! list of members alone; a value is only checked for its presence.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, Int32Builder, Int64Builder, ListBuilder, StringBuilder, StringDictionaryBuilder,
    TimestampMicrosecondBuilder,
};
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::DataType;
use chrono::{DateTime, SecondsFormat, Utc};
use proptest::prelude::*;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value as Json};
use strongroom_schemas::Table;
use strongroom_schemas::form::{Kind, MAPPED};

/// The value of each entry of `MAPPED`; a time is a number of microseconds.
#[derive(Clone, Debug)]
pub struct Event(Vec<Option<Json>>);

impl Event {
    pub fn text(&self, at: usize) -> Option<&str> {
        self.0[at].as_ref().and_then(Json::as_str)
    }

    /// Gives a column another value; a null removes it.
    pub fn set(&mut self, column: &str, value: Json) {
        let at = MAPPED.iter().position(|mapped| mapped.name == column).expect("a column");
        self.0[at] = Some(value).filter(|value| !value.is_null());
    }
}

fn text() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        3 => any::<char>(),
        3 => prop::char::range('\0', '\u{7f}'),
        1 => prop::sample::select(vec!['"', '\\', '/', '<', '&', '$', '{', '}', '\u{8}', '\u{c}', '\u{2028}', '😀']),
    ];
    prop::collection::vec(character, 0..8).prop_map(String::from_iter)
}

fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![text().prop_map(Json::from), any::<i32>().prop_map(Json::from), Just(Json::Null)];
    let tree = leaf.prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Json::from),
            prop::collection::btree_map("[a-z/]{1,4}", inner, 0..3)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    });
    prop::collection::btree_map("[a-z/.]{1,6}", tree, 0..3)
        .prop_map(|members| Json::Object(members.into_iter().collect()))
}

fn time() -> impl Strategy<Value = i64> {
    // Years 1 to 9999; some with few decimals, as most times have.
    (-62_135_596_800_000_000..=253_402_300_799_999_999_i64, 0_u32..=6)
        .prop_map(|(micros, cut)| micros.div_euclid(10_i64.pow(cut)) * 10_i64.pow(cut))
        .prop_filter("a year of four digits", |micros| *micros >= -62_135_596_800_000_000)
}

/// Generates events with any members. Each has an `auditID`.
pub fn event() -> impl Strategy<Value = Event> {
    let values: Vec<_> = MAPPED
        .iter()
        .enumerate()
        .map(|(at, mapped)| {
            let value = match mapped.kind {
                Kind::Text => text().prop_map(Json::from).boxed(),
                Kind::List => prop::collection::vec(text(), 0..3).prop_map(Json::from).boxed(),
                Kind::Integer => any::<i32>().prop_map(Json::from).boxed(),
                Kind::Json => json().boxed(),
                Kind::Time => time().prop_map(Json::from).boxed(),
            };
            match at {
                0 => value.prop_map(Some).boxed(),
                _ => prop::option::weighted(0.6, value).boxed(),
            }
        })
        .collect();
    values.prop_map(Event)
}

#[derive(Clone, Copy, Debug)]
pub enum Dialect {
    /// Like kube-apiserver, with Go's escapes, but with keys in another order.
    Go,
    /// Like Python's `json.dumps`: with spaces, in ASCII, and with times by `isoformat`.
    Python,
    /// Pretty-printed, with times of nine decimals.
    Pretty,
    /// With sorted keys, a constant and a varying member, and times in RFC 3339 with as many
    /// decimals as needed.
    Sorted,
    /// The event as a string, in a string: `{"message":"… stdout F {\"log\":\"{…}\\n\"}"}`.
    Nested,
}

pub const DIALECTS: [Dialect; 5] =
    [Dialect::Go, Dialect::Python, Dialect::Pretty, Dialect::Sorted, Dialect::Nested];

/// Members in an order, as `serde_json` and the templates write them.
enum Tree<L> {
    Object(Vec<(String, Tree<L>)>),
    Leaf(L),
}

impl<L: Serialize> Serialize for Tree<L> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Tree::Leaf(leaf) => leaf.serialize(serializer),
            Tree::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

/// Returns the members that are present, each with what `leaf` returns for it and its depth.
fn tree<L>(event: &Event, leaf: impl Fn(usize, usize) -> L) -> Vec<(String, Tree<L>)> {
    let mut members: Vec<(String, Tree<L>)> = Vec::new();
    for (at, mapped) in MAPPED.iter().enumerate() {
        if event.0[at].is_none() {
            continue;
        }
        let Some(container) = mapped.inside else {
            members.push((mapped.member.to_owned(), Tree::Leaf(leaf(at, 1))));
            continue;
        };
        let entry = (mapped.member.to_owned(), Tree::Leaf(leaf(at, 2)));
        match members.iter_mut().find(|(name, _)| name == container) {
            Some((_, Tree::Object(inner))) => inner.push(entry),
            _ => members.push((container.to_owned(), Tree::Object(vec![entry]))),
        }
    }
    members
}

fn sort<L>(members: &mut [(String, Tree<L>)]) {
    for (_, value) in members.iter_mut() {
        if let Tree::Object(inner) = value {
            sort(inner);
        }
    }
    members.sort_by(|a, b| a.0.cmp(&b.0));
}

/// How a template is laid out: the text between members, after a colon, and before a line.
struct Skeleton {
    comma: &'static str,
    colon: &'static str,
    indent: Option<usize>,
}

fn template(members: &[(String, Tree<String>)], depth: usize, skeleton: &Skeleton, out: &mut String) {
    let line = |depth: usize, out: &mut String| {
        if let Some(width) = skeleton.indent {
            out.push('\n');
            out.push_str(&" ".repeat(width * depth));
        }
    };
    out.push('{');
    for (at, (name, value)) in members.iter().enumerate() {
        if at > 0 {
            out.push_str(skeleton.comma);
        }
        line(depth, out);
        let _ = write!(out, "\"{name}\"{}", skeleton.colon);
        match value {
            Tree::Leaf(hole) => out.push_str(hole),
            Tree::Object(inner) => template(inner, depth + 1, skeleton, out),
        }
    }
    if !members.is_empty() {
        line(depth - 1, out);
    }
    out.push('}');
}

fn hole(at: usize, text: &str, list: &str, time: &str) -> String {
    let name = MAPPED[at].name;
    match MAPPED[at].kind {
        Kind::Text => format!("${{{name}:{text}}}"),
        Kind::List => format!("${{{name}:{list}}}"),
        Kind::Time => format!("${{{name}:{time}}}"),
        Kind::Integer | Kind::Json => format!("${{{name}}}"),
    }
}

fn instant(micros: &Json) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros.as_i64().expect("a number")).expect("a time")
}

/// Returns the value of a member. A time is written as `time` returns it.
fn with_time(event: &Event, at: usize, time: impl Fn(DateTime<Utc>) -> String) -> Json {
    let value = event.0[at].clone().expect("the value is there");
    if MAPPED[at].kind == Kind::Time { time(instant(&value)).into() } else { value }
}

fn go_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\x1f' => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

fn python_string(text: &str, out: &mut String) {
    out.push('"');
    for unit in text.encode_utf16() {
        match unit {
            0x22 => out.push_str("\\\""),
            0x5c => out.push_str("\\\\"),
            0x0a => out.push_str("\\n"),
            0x0d => out.push_str("\\r"),
            0x09 => out.push_str("\\t"),
            0x08 => out.push_str("\\b"),
            0x0c => out.push_str("\\f"),
            0x20..=0x7e => out.push(char::from(unit as u8)),
            other => {
                let _ = write!(out, "\\u{other:04x}");
            }
        }
    }
    out.push('"');
}

/// Writes any JSON with a writer of strings and the text after commas and colons.
fn by_hand(value: &Json, string: fn(&str, &mut String), gap: &str, out: &mut String) {
    match value {
        Json::String(text) => string(text, out),
        Json::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    let _ = write!(out, ",{gap}");
                }
                by_hand(item, string, gap, out);
            }
            out.push(']');
        }
        Json::Object(members) => {
            out.push('{');
            for (at, (name, member)) in members.iter().enumerate() {
                if at > 0 {
                    let _ = write!(out, ",{gap}");
                }
                string(name, out);
                let _ = write!(out, ":{gap}");
                by_hand(member, string, gap, out);
            }
            out.push('}');
        }
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

fn tree_by_hand(
    members: &[(String, Tree<Json>)],
    string: fn(&str, &mut String),
    gap: &str,
    out: &mut String,
) {
    out.push('{');
    for (at, (name, value)) in members.iter().enumerate() {
        if at > 0 {
            let _ = write!(out, ",{gap}");
        }
        string(name, out);
        let _ = write!(out, ":{gap}");
        match value {
            Tree::Leaf(value) => by_hand(value, string, gap, out),
            Tree::Object(inner) => tree_by_hand(inner, string, gap, out),
        }
    }
    out.push('}');
}

fn compact(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings and numbers")
}

/// How a dialect writes the text of a json column, at a depth.
type JsonText = Box<dyn Fn(&Json, usize) -> String>;

/// Returns the row that gives back the record of `event` in a dialect, and that record. `varying`
/// and `number` are values that vary from record to record.
pub fn row(dialect: Dialect, event: &Event, varying: &str, number: i32) -> (Map<String, Json>, Vec<u8>) {
    let mut form = String::new();
    let mut values = Vec::new();
    let mut record = String::new();
    let skeleton = Skeleton { comma: ",", colon: ":", indent: None };
    // A json column has what the dialect writes there.
    let json_text: JsonText;
    match dialect {
        Dialect::Go => {
            let times = |time: DateTime<Utc>| time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
            tree_by_hand(&tree(event, |at, _| with_time(event, at, times)), go_string, "", &mut record);
            template(&tree(event, |at, _| hole(at, "go", "go", "6Z")), 1, &skeleton, &mut form);
            json_text = Box::new(|value, _| {
                let mut text = String::new();
                by_hand(value, go_string, "", &mut text);
                text
            });
        }
        Dialect::Python => {
            let times = |time: DateTime<Utc>| match time.timestamp_subsec_micros() {
                0 => time.format("%Y-%m-%dT%H:%M:%S+00:00").to_string(),
                _ => time.format("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string(),
            };
            tree_by_hand(&tree(event, |at, _| with_time(event, at, times)), python_string, " ", &mut record);
            let skeleton = Skeleton { comma: ", ", colon: ": ", indent: None };
            let holes = tree(event, |at, _| hole(at, "ascii", "ascii,spaced", "sixes+00:00"));
            template(&holes, 1, &skeleton, &mut form);
            json_text = Box::new(|value, _| {
                let mut text = String::new();
                by_hand(value, python_string, " ", &mut text);
                text
            });
        }
        Dialect::Pretty => {
            let times = |time: DateTime<Utc>| time.format("%Y-%m-%dT%H:%M:%S%.9fZ").to_string();
            let members = Tree::Object(tree(event, |at, _| with_time(event, at, times)));
            record = serde_json::to_string_pretty(&members).expect("strings and numbers");
            let skeleton = Skeleton { comma: ",", colon: ": ", indent: Some(2) };
            let holes = tree(event, |at, depth| {
                hole(at, "json", &format!("json,lines-{}-{}", 2 * depth + 2, 2 * depth), "9Z")
            });
            template(&holes, 1, &skeleton, &mut form);
            json_text = Box::new(|value, depth| {
                let text = serde_json::to_string_pretty(value).expect("strings and numbers");
                text.replace('\n', &format!("\n{}", "  ".repeat(depth)))
            });
        }
        Dialect::Sorted => {
            let times = |time: DateTime<Utc>| {
                let text = time.format("%Y-%m-%dT%H:%M:%S%.6f").to_string();
                format!("{}Z", text.trim_end_matches('0').trim_end_matches('.'))
            };
            let added = [("@version", Json::from("1")), ("offset", number.into()), ("zone", varying.into())];
            let mut members = tree(event, |at, _| with_time(event, at, times));
            members.extend(added.map(|(name, value)| (name.to_owned(), Tree::Leaf(value))));
            sort(&mut members);
            record = compact(&Tree::Object(members));
            let added = [("@version", "\"1\""), ("offset", "${}"), ("zone", "\"${}\"")];
            let mut holes = tree(event, |at, _| hole(at, "json", "json", "trimZ"));
            holes.extend(added.map(|(name, text)| (name.to_owned(), Tree::Leaf(text.to_owned()))));
            sort(&mut holes);
            template(&holes, 1, &skeleton, &mut form);
            values = vec![number.to_string(), varying.to_owned()];
            json_text = Box::new(|value, _| compact(value));
        }
        Dialect::Nested => {
            let times = |time: DateTime<Utc>| match time.timestamp_subsec_nanos() {
                0 => time.to_rfc3339_opts(SecondsFormat::Secs, true),
                _ => time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
            };
            let inner = compact(&Tree::Object(tree(event, |at, _| with_time(event, at, times)))) + "\n";
            let log = Tree::Object(vec![
                ("log".to_owned(), Tree::Leaf(Json::from(inner))),
                ("stream".to_owned(), Tree::Leaf("stdout".into())),
            ]);
            let message = format!("{number} stdout F {}", compact(&log));
            record = compact(&BTreeMap::from([("host", varying), ("message", &message)]));
            let mut event_form = String::new();
            template(
                &tree(event, |at, _| hole(at, "json", "json", "threesZ")),
                1,
                &skeleton,
                &mut event_form,
            );
            form = format!(
                "{{\"host\":\"${{}}\",\"message\":${{<json}}${{}} stdout F {{\"log\":${{<json}}{event_form}\n${{>}},\"stream\":\"stdout\"}}${{>}}}}"
            );
            values = vec![varying.to_owned(), number.to_string()];
            json_text = Box::new(|value, _| compact(value));
        }
    }
    let mut row = Map::new();
    for (mapped, value) in MAPPED.iter().zip(&event.0) {
        let Some(value) = value else { continue };
        let value = match mapped.kind {
            Kind::Json => json_text(value, if mapped.inside.is_some() { 2 } else { 1 }).into(),
            _ => value.clone(),
        };
        row.insert(mapped.name.to_owned(), value);
    }
    row.insert("form".to_owned(), form.into());
    row.insert("form_values".to_owned(), if values.is_empty() { Json::Null } else { values.into() });
    (row, record.into_bytes())
}

/// Makes rows of `events` in the batch schema from their columns. Columns that are not named are
/// null.
pub fn batch(rows: &[Map<String, Json>]) -> RecordBatch {
    let schema = Table::Events.batch_schema();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        let cells = rows.iter().map(|row| row.get(field.name()).filter(|cell| !cell.is_null()));
        let text = |cell: &Json| cell.as_str().expect("text").to_owned();
        macro_rules! built {
            ($builder:expr, $value:expr) => {{
                let mut builder = $builder;
                cells.for_each(|cell| builder.append_option(cell.map($value)));
                Arc::new(builder.finish())
            }};
        }
        macro_rules! lists {
            ($builder:expr) => {{
                let mut builder = ListBuilder::new($builder);
                cells.for_each(|cell| match cell {
                    Some(cell) => {
                        for item in cell.as_array().expect("a list") {
                            builder.values().append_option(item.as_str());
                        }
                        builder.append(true);
                    }
                    None => builder.append(false),
                });
                Arc::new(builder.finish())
            }};
        }
        match field.data_type() {
            DataType::Utf8 => built!(StringBuilder::new(), text),
            DataType::Binary => built!(BinaryBuilder::new(), |cell| text(cell).into_bytes()),
            DataType::Dictionary(..) => built!(StringDictionaryBuilder::<Int32Type>::new(), text),
            DataType::Int32 => built!(Int32Builder::new(), |cell| cell.as_i64().expect("a number") as i32),
            DataType::Int64 => built!(Int64Builder::new(), |cell| cell.as_i64().expect("a number")),
            DataType::Timestamp(..) => {
                built!(TimestampMicrosecondBuilder::new().with_timezone("UTC"), |cell| cell
                    .as_i64()
                    .expect("a number"))
            }
            DataType::List(item) => match item.data_type() {
                DataType::Utf8 => lists!(StringBuilder::new()),
                _ => lists!(StringDictionaryBuilder::<Int32Type>::new()),
            },
            other => panic!("no column of events is {other}"),
        }
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect()).expect("columns of events")
}

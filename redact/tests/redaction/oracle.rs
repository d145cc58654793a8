//! Compares the editor, which edits the bytes of a body, with an oracle, which parses the body and
//! edits the parsed values. The oracle shares no code with the editor: for each value in the body,
//! it compares the way from the body to that value with each path of the policy. The bodies have
//! random structures and spellings.

use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::{edited, key, rule, with};

/// A step of a path, as the test writes paths.
#[derive(Clone, Debug)]
enum Step {
    Name(&'static str),
    AnyMember,
    AnyElement,
    AnyDepth,
}

/// A step from a value to a value inside it.
#[derive(Clone, Debug)]
enum Key {
    Name(String),
    Index,
}

const NAMES: [&str; 6] = ["a", "b", "A", "$patch/b", "c/d", "é"];

fn path_text(steps: &[Step]) -> String {
    let step = |step: &Step| match step {
        Step::Name(name) => format!("[\"{name}\"]"),
        Step::AnyMember => ".*".to_owned(),
        Step::AnyElement => "[]".to_owned(),
        Step::AnyDepth => ".**".to_owned(),
    };
    format!("requestObject{}", steps.iter().map(step).collect::<String>())
}

fn takes(step: &Step, key: &Key) -> bool {
    match (step, key) {
        (Step::Name(name), Key::Name(own)) => {
            let own = if own.starts_with('$') {
                own.split_once('/').map_or(own.as_str(), |(_, rest)| rest)
            } else {
                own
            };
            name.eq_ignore_ascii_case(own)
        }
        (Step::AnyMember, Key::Name(_)) | (Step::AnyElement, _) => true,
        _ => false,
    }
}

/// Returns what may remain of a path after the steps of `way`.
fn rests<'s>(steps: &'s [Step], way: &[Key]) -> Vec<&'s [Step]> {
    let Some((key, way)) = way.split_first() else { return vec![steps] };
    match steps {
        [] => Vec::new(),
        [Step::AnyDepth, rest @ ..] => {
            let mut all = rests(steps, way);
            if rest.first().is_some_and(|step| takes(step, key)) {
                all.extend(rests(&rest[1..], way));
            }
            all
        }
        [Step::Name(_) | Step::AnyMember, ..] if matches!(key, Key::Index) => rests(steps, way),
        [step, rest @ ..] if takes(step, key) => rests(rest, way),
        _ => Vec::new(),
    }
}

#[derive(PartialEq)]
enum Outcome {
    Value(Value),
    Dropped,
}

fn oracle(value: &Value, way: &mut Vec<Key>, rules: &[(Vec<Step>, bool)]) -> Outcome {
    let is_scalar = !value.is_object() && !value.is_array() && !value.is_null();
    let hit = |is_drop: bool| {
        rules.iter().filter(|(_, drop)| *drop == is_drop).any(|(steps, _)| {
            rests(steps, way).iter().any(|rest| {
                rest.is_empty() && !way.is_empty()
                    || is_scalar && !matches!(rest, [] | [Step::AnyDepth, _, ..])
            })
        })
    };
    if hit(true) {
        return Outcome::Dropped;
    }
    if hit(false) && !value.is_null() {
        return Outcome::Value(Value::from(key().token(value).as_str()));
    }
    Outcome::Value(match value {
        Value::Object(members) => {
            let mut left = Map::new();
            for (name, inner) in members {
                way.push(Key::Name(name.clone()));
                if let Outcome::Value(inner) = oracle(inner, way, rules) {
                    left.insert(name.clone(), inner);
                }
                way.pop();
            }
            Value::Object(left)
        }
        Value::Array(elements) => Value::Array(
            elements
                .iter()
                .map(|inner| {
                    way.push(Key::Index);
                    let outcome = oracle(inner, way, rules);
                    way.pop();
                    match outcome {
                        Outcome::Value(inner) => inner,
                        Outcome::Dropped => Value::Null,
                    }
                })
                .collect(),
        ),
        scalar => scalar.clone(),
    })
}

/// Writes a value with white space and escapes, which `choices` selects.
fn spelled(value: &Value, choices: &mut impl Iterator<Item = u8>, out: &mut String) {
    let white = |choices: &mut dyn Iterator<Item = u8>| {
        ["", "", " ", "\n\t"][usize::from(choices.next().unwrap_or(0) % 4)]
    };
    fn string(text: &str, choices: &mut impl Iterator<Item = u8>, out: &mut String) {
        out.push('"');
        for character in text.chars() {
            if choices.next().unwrap_or(0).is_multiple_of(4) {
                let mut units = [0; 2];
                character
                    .encode_utf16(&mut units)
                    .iter()
                    .for_each(|unit| out.push_str(&format!("\\u{unit:04X}")));
            } else {
                let literal = serde_json::to_string(&character).expect("a literal");
                out.push_str(&literal[1..literal.len() - 1]);
            }
        }
        out.push('"');
    }
    out.push_str(white(choices));
    match value {
        Value::Object(members) => {
            out.push('{');
            for (at, (name, inner)) in members.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                out.push_str(white(choices));
                string(name, choices, out);
                out.push_str(white(choices));
                out.push(':');
                spelled(inner, choices, out);
            }
            out.push_str(white(choices));
            out.push('}');
        }
        Value::Array(elements) => {
            out.push('[');
            for (at, inner) in elements.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                spelled(inner, choices, out);
            }
            out.push_str(white(choices));
            out.push(']');
        }
        Value::String(text) => string(text, choices, out),
        other => out.push_str(&other.to_string()),
    }
    out.push_str(white(choices));
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|number| Value::from(f64::from(number) / 8.0)),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            object(inner).prop_map(Value::Object),
        ]
    })
}

fn object(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    let name = proptest::sample::select(&NAMES[..]).prop_map(str::to_owned);
    proptest::collection::vec((name, inner), 0..6).prop_map(|members| members.into_iter().collect())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => proptest::sample::select(&["a", "b", "c/d", "É", "é"][..]).prop_map(Step::Name),
        2 => Just(Step::AnyMember),
        2 => Just(Step::AnyElement),
        1 => Just(Step::AnyDepth),
    ];
    proptest::collection::vec(step, 1..5).prop_filter("no ** after **", |steps| {
        !steps.windows(2).any(|pair| matches!(pair, [Step::AnyDepth, Step::AnyDepth]))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn editing_bytes_is_editing_values(
        body in object(value()).prop_map(Value::Object),
        rules in proptest::collection::vec((steps(), any::<bool>()), 1..4),
        choices in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let policy = rules.iter().map(|(steps, drop)| {
            rule(if *drop { "drop" } else { "tokenise" }, &[&path_text(steps)])
        }).collect();
        let redactor = with(policy, &[], &[]);
        let mut text = String::from(r#"{"kind":"Event","requestObject":"#);
        spelled(&body, &mut choices.into_iter().chain(std::iter::repeat(1)), &mut text);
        text.push_str(r#","stage":"ResponseComplete"}"#);
        let (left, mark) = edited(&redactor, &text);

        let Outcome::Value(expected) = oracle(&body, &mut Vec::new(), &rules) else {
            return Err(TestCaseError::fail("the whole body was dropped, although every path has a step"));
        };
        let found: Value = serde_json::from_str(&left).expect("JSON");
        prop_assert_eq!(&found["requestObject"], &expected, "{}", text);
        prop_assert_eq!(mark.is_none(), left == text);
        // Everything outside the body is unchanged.
        let is_whole = left.starts_with(r#"{"kind":"Event","requestObject":"#)
            && left.ends_with(r#","stage":"ResponseComplete"}"#);
        prop_assert!(is_whole);
        if let Some(mark) = mark {
            crate::markers::assert_true(&mark, &left);
        }
        // A second run finds nothing more to drop.
        let only_drops = rules.iter().filter(|(_, drop)| *drop).map(|(steps, _)| rule("drop", &[&path_text(steps)]));
        let only_drops: Vec<_> = only_drops.collect();
        if only_drops.len() == rules.len() {
            let again = edited(&with(only_drops, &[], &[]), &left).0;
            prop_assert_eq!(serde_json::from_str::<Value>(&again).expect("JSON"), found);
        }
    }
}

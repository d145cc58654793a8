//! Tests of the redactor through the interface of the crate.

mod cases;
mod markers;
mod oracle;

use strongroom_redact::{
    Counts, Form, Key, Keys, Policy, Redacted, Redactor, RuleSettings, Settings, Target, Unreadable,
};

/// Returns the key that is the current one in every test.
pub fn key() -> Key {
    Key::parse(&"0123456789abcdef".repeat(4)).expect("a key")
}

/// Returns a rule that applies to every event.
pub fn rule(action: &str, paths: &[&str]) -> RuleSettings {
    RuleSettings {
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        action: action.to_owned(),
        ..RuleSettings::default()
    }
}

/// Returns a redactor with these rules.
pub fn with(rules: Vec<RuleSettings>, presets: &[&str], detectors: &[&str]) -> Redactor {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let settings = Settings {
        key: Some("env:UNUSED".to_owned()),
        old_keys: Vec::new(),
        presets: owned(presets),
        detectors: owned(detectors),
        rules,
    };
    let policy = Policy::new(&settings).unwrap_or_else(|errors| panic!("{errors:?}"));
    Redactor::new(policy, Keys::new(key(), Vec::new()).expect("keys"))
}

/// The target of a Secret.
pub const SECRET: Target<'static> =
    Target { namespace: Some("phi"), name: Some("db"), api_group: None, resource: Some("secrets") };

/// Returns the edited event, with its mark; the text itself if the policy changes nothing.
pub fn edited(redactor: &Redactor, event: &str) -> (String, Option<String>) {
    match redactor.redact(event.as_bytes(), Form::Event, "prod", &SECRET) {
        Ok(None) => (event.to_owned(), None),
        Ok(Some(Redacted { event, mark, .. })) => {
            (String::from_utf8(event).expect("an edited event is text"), Some(mark.to_string()))
        }
        Err(error) => panic!("{error}: {event}"),
    }
}

/// An event that is not JSON is refused. The counts and the error are part of the interface.
#[test]
fn an_event_that_is_no_json_is_not_passed() {
    let redactor = with(vec![rule("drop", &["requestObject.data.*"])], &[], &[]);
    let event =
        r#"{"kind":"Event","requestObject":{"data":{"a":"x","b":"y"}},"responseObject":{"data":{"a":"x"}}}"#;
    let redact = |text: &[u8]| redactor.redact(text, Form::Event, "prod", &SECRET);
    let whole = redact(event.as_bytes()).expect("readable").expect("changed");
    let label = whole.counts.by_label.first().expect("a label").0;
    assert_eq!(redactor.label(label), "requestObject.data.*");
    assert_eq!(whole.counts, Counts { dropped: 2, tokenised: 0, by_label: vec![(label, 2)] });
    for end in 0..event.len() {
        assert!(matches!(redact(&event.as_bytes()[..end]), Err(Unreadable::NotJson)), "cut at {end}");
    }
    assert!(matches!(redact(format!("{event}x").as_bytes()), Err(Unreadable::NotJson)));
    assert!(matches!(redact(b"[]"), Err(Unreadable::NotJson)));
    assert!(matches!(redact(b"{\"a\":\"\xff\"}"), Err(Unreadable::NotUtf8)));
    let deep = format!(r#"{{"requestObject":{{"data":{}1{}}}}}"#, "[".repeat(130), "]".repeat(130));
    assert!(matches!(redact(deep.as_bytes()), Err(Unreadable::TooDeep)));
    let twice = r#"{"requestObject":{"data":{"a":"x"}},"requestObject":{"spec":1}}"#;
    assert!(matches!(redact(twice.as_bytes()), Err(Unreadable::Ambiguous)));
    let spaced = redact(format!(" \n{event}\t ").as_bytes()).expect("readable").expect("changed");
    assert_eq!(spaced.event, whole.event);
    // An event to which no rule applies is not even parsed.
    let other = with(
        vec![RuleSettings { resources: vec!["pods".to_owned()], ..rule("drop", &["requestObject"]) }],
        &[],
        &[],
    );
    assert!(matches!(other.redact(b"{", Form::Event, "prod", &SECRET), Ok(None)));
}

//! Streams in blocks of any size, and streams of clients that forge events.

use strongroom_generate::dialect::{self, Dialect};

use super::*;
use crate::streams::{self, Options, forgery};

fn cases(short: u32, long: u32) -> ProptestConfig {
    let is_long = std::env::var_os("STRONGROOM_LONG").is_some_and(|value| value == "1");
    ProptestConfig::with_cases(if is_long { long } else { short })
}

/// Returns a function that takes numbers from `drawn`, and zeros after the end of `drawn`.
fn draws(drawn: &[u32]) -> impl FnMut(usize) -> usize {
    let mut rest = drawn.iter();
    move |bound| rest.next().map_or(0, |drawn| *drawn as usize % bound.max(1))
}

proptest! {
    #![proptest_config(cases(400, 100_000))]

    #[test]
    fn nothing_that_a_client_controls_is_an_event(drawn in prop::collection::vec(any::<u32>(), 40..400)) {
        forgery::check(&mut draws(&drawn));
    }
}

proptest! {
    #![proptest_config(cases(100, 10_000))]

    /// Events of a stream in any dialect, some of them mutated, in blocks of any size.
    #[test]
    fn rows_do_not_depend_on_blocks(
        dialects in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..40), 1..6),
        damage in prop::collection::vec((any::<u8>(), any::<usize>(), any::<u8>()), 0..4),
        sizes in prop::collection::vec(1_usize..3_000, 1..8),
        long in any::<bool>(),
        unwrap in 0_usize..3,
        believes_all: bool,
    ) {
        thread_local!(static EVENTS: Vec<String> = lines(71, 40));
        let mut stream = Vec::new();
        for (dialect, event) in dialects {
            let event = EVENTS.with(|events| events[event].clone());
            dialect::render(&event, *dialect.get(&Dialect::ALL), &mut stream).expect("an event");
        }
        for (kind, at, byte) in damage {
            if !stream.is_empty() {
                stream = mutate(&stream, kind, at, byte);
            }
        }
        let path = [None, Some("json"), Some("properties.log")][unwrap];
        let unwrap = path.map(|path| EventPath::parse(path).expect("a path"));
        let writers = if believes_all { Writers::UNJUDGED } else { Writers::SERVERS };
        let options = Options {
            line_bytes_max: if long { 700 } else { LINE_BYTES_MAX },
            reading: Arc::new(Reading { unwrap, writers }),
            ..Options::default()
        };
        let mut sizes = sizes.into_iter().cycle();
        streams::check(&stream, &options, &mut || sizes.next().unwrap_or(1));
    }
}

proptest! {
    #![proptest_config(cases(150, 10_000))]

    /// Documents that people have edited, or that programs have joined or not finished, in blocks of
    /// any size: no whole event is lost, and every byte is kept.
    #[test]
    fn edited_documents_lose_no_event(
        documents in prop::collection::vec(
            (0_usize..4, any::<bool>(), prop::collection::vec((0_usize..40, 0_usize..8), 1..5), 0_usize..6, 0_usize..5),
            1..4,
        ),
        crlf in any::<bool>(),
        sizes in prop::collection::vec(1_usize..3_000, 1..8),
    ) {
        const HEADS: [&str; 4] = [
            "[",
            "[\n,",
            "{\n\"kind\": \"EventList\",\n\"apiVersion\": \"audit.k8s.io/v1\",\n\"items\": [",
            "{\n\"kind\": \"EventList\", \"metadata\": {},\n\"items\": [,",
        ];
        const BETWEEN: [&str; 8] = [",", ",\n", " , ", ",,", "\n,\n,\n", "\n", "", " "];
        const TAILS: [&str; 6] = ["]", ",]", "\n]", " ,\n , ]", "", ",\n"];
        const JOINTS: [&str; 5] = ["", "\n", "\n\u{feff}", "\n\n", "\u{feff}"];
        thread_local!(static EVENTS: Vec<String> = lines(73, 40));
        let (mut stream, mut wanted, mut is_open) = (String::new(), Vec::new(), false);
        let last = documents.len() - 1;
        for (at, (head, is_pretty, events, tail, joint)) in documents.into_iter().enumerate() {
            // After a list without its closing bracket, an object would be an element of that list.
            let head = if is_open { head % 2 } else { head };
            // After a comma, a list would be an element, too.
            let tail = if at < last && tail == 5 { 4 } else { tail };
            is_open = tail > 3;
            stream += HEADS[head];
            let event = |number: usize| EVENTS.with(|events| events[number].clone());
            let texts = events.iter().map(|(number, _)| match is_pretty {
                true => {
                    let value: serde_json::Value = serde_json::from_str(&event(*number)).expect("JSON");
                    serde_json::to_string_pretty(&value).expect("JSON")
                }
                false => event(*number),
            });
            for (position, text) in texts.enumerate() {
                if position > 0 {
                    stream += BETWEEN[events[position].1];
                }
                stream += &text;
            }
            stream += TAILS[tail];
            if head > 1 && tail < 4 {
                stream += "}";
            }
            if at < last {
                stream += JOINTS[joint];
            }
            wanted.extend(events.iter().map(|(number, _)| id_of(&event(*number))));
        }
        if crlf {
            stream = stream.replace('\n', "\r\n");
        }
        let decoded = check(stream.as_bytes());
        let ids = decoded.events.column(index::AUDIT_ID).as_string::<i32>();
        let found: Vec<Option<String>> = ids.iter().map(|id| id.map(str::to_owned)).collect();
        prop_assert_eq!(found, wanted, "{}\n{:?}", stream, details(&decoded));
        // A carriage return after a document may be the frame of either neighbour.
        if !crlf {
            let mut sizes = sizes.into_iter().cycle();
            streams::check(stream.as_bytes(), &Options::default(), &mut || sizes.next().unwrap_or(1));
        }
    }
}

fn id_of(event: &str) -> Option<String> {
    plain::decode(event.as_bytes(), DEPTH_MAX).expect("an event").audit_id
}

/// Edited or joined documents lose no event either on lines of a stream that does not begin with a
/// document.
#[test]
fn edited_lists_on_lines_lose_no_event() {
    let events = lines(74, 3);
    let [a, b, c] = &events[..] else { panic!("three events") };
    let list = |events: &str| format!(r#"{{"kind":"EventList","items":[{events}]}}"#);
    let record = |event: &str| aks_string("kube-audit", event);
    for line in [
        format!("[{a},{b},{c},]"),
        format!("[{a},,{b} , , {c}]"),
        format!("[,{a},{b},{c}"),
        format!("[{a}][{b},{c}]"),
        format!("[{a}] [{b}] {c}"),
        format!("{a}[{b}][{c}]"),
        format!("{}{}", list(&format!("{a},{b}")), list(c)),
        format!("{}{c}", list(&format!("{a},,{b},"))),
        format!("{a}{}", list(&format!("{b},{c}"))),
        format!(r#"{{"records":[{},,{},{},]}}"#, record(a), record(b), record(c)),
        format!("\u{feff}{a}\n\u{feff}{b}\r\n\u{feff}{c}"),
        format!("\u{feff}[{a},{b}]\n\u{feff}{}", list(c)),
        format!("{a}\r\n{b}\r\n\n{c}\r"),
    ] {
        let decoded = check(format!("x\n{line}\n").as_bytes());
        same_events(&decoded, &events);
        assert_eq!(reasons(&decoded).len(), 1, "{line}: {:?}", details(&decoded));
    }
    // An array is refused if the text after it may belong to a text around a client's array.
    for line in [format!("[{a}],\"x\":{{}}"), format!("[{a}]}}"), format!("[{a}] x")] {
        assert_eq!(check(format!("x\n{line}\n").as_bytes()).events.num_rows(), 0, "{line}");
    }
}

/// Frames of GELF, some of which come from other programs, and text that only looks like such
/// frames.
#[test]
fn frames_of_gelf() {
    let events = lines(75, 3);
    let gelf = |event: &String| format!(r#"{{"version":"1.1","short_message":{}}}"#, quoted(event));
    let other = r#"{"version":"1.1","short_message":"hello"}"#;
    let frames = |texts: &[&str]| texts.iter().map(|text| format!("{text}\0")).collect::<String>();
    let [a, b, c] = [&events[0], &events[1], &events[2]].map(gelf);
    for (text, rejects) in [
        (frames(&[&a, &b, &c]), 0),
        (frames(&[&a, other, &b, &c]), 1),
        (frames(&[other, &a, &b, &c, other]), 2),
        (format!("{a}\0{b}\0{c}"), 0),
        (format!("\0{a}\0{b}\0{c}\n"), 0),
        (format!("{a}\0\n{b}\0{c}\0\n"), 0),
        (format!("{}\0{}\0{}\0", events[0], events[1], events[2]), 0),
        (format!("{a}\0{b}\0I0302 10:00:00.000001       1 a.go:1] \0{a}\0\n{c}\0"), 1),
    ] {
        let decoded = check(text.as_bytes());
        same_events(&decoded, &events);
        assert_eq!(reasons(&decoded).len(), rejects, "{text:?}");
        streams::check(text.as_bytes(), &Options::default(), &mut || 100);
    }
    for text in [format!("x\0{a}\0"), format!("I0302 10:00:00.000001       1 a.go:1] \0{a}\0{b}\0")] {
        assert_eq!(check(text.as_bytes()).events.num_rows(), 0, "{text:?}");
    }
}

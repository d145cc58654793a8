//! Events at a path that is configured for their source.

use strongroom_decode::meaning::compare_events;
use strongroom_lines::Dialect;
use strongroom_schemas::format::EVENTS_FORMAT;

use super::*;

/// Decodes lines of a source with the path, and checks that every byte is kept and that each row is
/// what its record says.
fn decoded(text: &str, path: &str) -> DecodedBlock {
    let unwrap = Some(EventPath::parse(path).expect("a path"));
    let reading = Arc::new(Reading { unwrap, ..Reading::default() });
    let block = Block {
        origin: Arc::new(Origin { partition: "p".into(), cluster: "c".into(), reading }),
        offset: 0,
        first_line: 1,
        bytes: text.as_bytes().to_vec(),
        begins: LineSoFar::default().edge(text.as_bytes(), LINE_BYTES_MAX),
        ends: Edge::Line,
        open_ended: false,
    };
    let mut decoder = Decoder::new(DecoderConfig::default());
    let decoded = decoder.decode(&block, chrono::DateTime::UNIX_EPOCH).expect("columns");
    assert_eq!(rebuilt(&decoded, text.len()), text.as_bytes());
    let mut differ = |row, how| panic!("{text}: row {row}: {how}");
    compare_events(&decoded.events, EVENTS_FORMAT, &mut |_| {}, &mut differ).expect("events");
    decoded
}

fn shapes(decoded: &DecodedBlock) -> Vec<Option<String>> {
    let shapes = decoded.events.column(index::SHAPE).as_dictionary::<Int32Type>();
    let shapes = shapes.downcast_dict::<arrow_array::StringArray>().expect("text");
    shapes.into_iter().map(|shape| shape.map(str::to_owned)).collect()
}

#[test]
fn an_event_at_the_path_is_found() {
    let events = lines(61, 200);
    let object = |event: &String| format!(r#"{{"id":1,"detail":{{"type":"x","audit":{event}}}}}"#);
    let string = |event: &String| object(&quoted(event));
    for wrap in [&object as &dyn Fn(&String) -> String, &string] {
        let text: String = events.iter().map(|event| wrap(event) + "\n").collect();
        let found = decoded(&text, "detail.audit");
        same_events(&found, &events);
        // Every record is kept, and there is no form.
        assert_eq!(found.events.column(index::RAW).null_count(), 0);
        assert_eq!(found.events.column(index::FORM).null_count(), events.len());
        assert!(shapes(&found).iter().all(|shape| shape.as_deref() == Some("unwrap:detail.audit")));
        let counts: Vec<_> = found.dialects.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counts, [(Dialect::OtherWrapper, events.len() as u64)]);
        assert_eq!(
            check(text.as_bytes()).events.num_rows(),
            0,
            "without the configured path nothing is an event"
        );
    }
}

#[test]
fn a_list_at_the_path_is_its_elements() {
    let events = lines(69, 3);
    let items = events.join(",");
    let list = format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[{items}]}}"#);
    let array = format!("[{items}]");
    for value in [list.clone(), array.clone(), quoted(&list), quoted(&format!(" {array} "))] {
        let line = format!(r#"{{"id":1,"detail":{{"audit": {value}}}}}"#);
        same_events(&decoded(&line, "detail.audit"), &events);
        assert_eq!(
            check(line.as_bytes()).events.num_rows(),
            0,
            "without the configured path nothing is an event"
        );
        let other = line.replace(r#""id":1"#, r#""container_name":"web""#);
        assert_eq!(decoded(&other, "detail.audit").events.num_rows(), 0, "{other}");
    }
}

#[test]
fn what_is_recognised_needs_no_path() {
    let events = lines(62, 3);
    let text: String = events.iter().map(|event| format!("{event}\n")).collect();
    let found = decoded(&text, "requestURI");
    same_events(&found, &events);
    assert_eq!(shapes(&found), [const { None }; 3]);
    let [first, _, third] = &events[..] else { panic!("three events") };
    let other = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"other","verb":"get"}"#;
    let carrier = format!(r#"{{"log":{},"detail":{other}}}"#, quoted(first));
    let found = decoded(&format!("{carrier}\n{}\n", eks(from_ref(third))), "detail");
    same_events(&found, &[first.clone(), third.clone()]);
    assert_eq!(shapes(&found), [const { None }; 2]);
}

/// Objects in an array are opened like those on lines.
#[test]
fn objects_in_an_array_are_opened() {
    let events = lines(65, 5);
    let object = |event: &String| format!(r#"{{"detail":{{"audit":{}}}}}"#, quoted(event));
    let objects: Vec<String> = events.iter().map(object).collect();
    for (text, rejects) in [
        (format!("[{}]\n", objects.join(",")), 0),
        (format!("[\n  {}\n]\n", objects.join(",\n  ")), 0),
        (format!("x\n[{}]\n", objects.join(",")), 1),
    ] {
        let found = decoded(&text, "detail.audit");
        same_events(&found, &events);
        assert_eq!(found.rejects.num_rows(), rejects, "{text}");
    }
    // An event in an array whose first element is of another kind may be a client's.
    let text = format!("[\n{{\"a\":1}},\n{},\n{}\n]\n", objects[0], events[1]);
    let found = decoded(&text, "detail.audit");
    same_events(&found, &events[..1]);
    assert_eq!(reasons(&found), ["not_an_audit_event", "torn_line"]);
}

#[test]
fn a_reject_says_which_path_was_tried() {
    let event = &lines(63, 1)[0];
    for (value, said) in [
        ("{}".to_owned(), "at a.b there is no event: "),
        (r#""hello""#.to_owned(), "at a.b there is no event: neither an object nor its text"),
        ("7".to_owned(), "at a.b there is no event: neither an object nor its text"),
        ("null".to_owned(), "there is nothing at a.b"),
        (format!("[[{event}]]"), "at a.b there is no event: neither an object nor its text"),
        (
            quoted(&format!("I0302 10:00:00.000001       1 x.go:1] {event}")),
            "at a.b there is no event: a line of klog",
        ),
        (quoted(&event[..event.len() / 8]), "at a.b there is no event: "),
    ] {
        let found = decoded(&format!("{{\"a\":{{\"b\":{value}}}}}\n"), "a.b");
        assert_eq!(
            (found.events.num_rows(), reasons(&found)),
            (0, vec!["not_an_audit_event".to_owned()]),
            "{value}"
        );
        assert!(details(&found)[0].contains(said), "{value}: {:?}", details(&found));
    }
    let found = decoded("{\"a\":1}\nnot JSON\n", "a.b");
    assert_eq!(reasons(&found), ["not_an_audit_event", "broken_json"]);
    assert!(
        !details(&found)[1].contains("a.b"),
        "the detail names a path that was not tried: {:?}",
        details(&found)
    );
}

#[test]
fn text_of_a_client_does_not_become_an_event() {
    let forged = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"forged","verb":"get","user":{"username":"admin"}}"#;
    let text = quoted(forged);
    let event = lines(64, 1).remove(0);
    let with_body =
        format!("{},\"requestObject\":{{\"data\":{{\"x\":{text}}}}}}}", &event[..event.len() - 1]);
    for (line, path) in [
        // A client's text in the body of an event, whatever the path is.
        (with_body.clone(), "requestURI"),
        (with_body.replace("requestObject", "other"), "other.data.x"),
        // Objects of Kubernetes, in which clients choose texts.
        (format!(r#"{{"kind":"Event","apiVersion":"v1","message":{text}}}"#), "message"),
        (format!(r#"{{"kind":"ConfigMap","apiVersion":"v1","data":{{"x":{forged}}}}}"#), "data.x"),
        // Lines of other writers.
        (format!(r#"{{"stream":"stderr","x":{text}}}"#), "x"),
        (format!(r#"{{"ts":1,"caller":"x.go:1","x":{text}}}"#), "x"),
        (format!(r#"{{"kubernetes":{{"namespace_name":"default"}},"x":{text}}}"#), "x"),
        (format!(r#"{{"kubernetes":{{"container_name":"app"}},"x":{text}}}"#), "x"),
        // The text is beside or below the path, or other text is around it or around the object.
        (format!(r#"{{"x":{{"y":{text}}},"z":{text}}}"#), "x"),
        (format!(r#"{{"x":{}}}"#, quoted(&format!("GET /?{forged}"))), "x"),
        (format!(r#"I0302 10:00:00.000001       1 x.go:1] {{"x":{text}}}"#), "x"),
        (format!(r#"{{"x":{text}"#), "x"),
        (quoted(&format!(r#"{{"x":{text}}}"#)), "x"),
    ] {
        for end in ["\n", ""] {
            let found = decoded(&format!("{line}{end}"), path);
            let ids = found.events.column(index::AUDIT_ID).as_string::<i32>();
            assert!(ids.iter().all(|id| id != Some("forged")), "{path}: {line}");
        }
    }
}

/// Without a path, the reject of an object says which path leads to the event in it.
#[test]
fn a_reject_says_which_path_would_lead_to_an_event() {
    let event = &lines(66, 1)[0];
    for (object, said) in [
        (format!(r#"{{"detail":{{"audit":{event}}}}}"#), Some("--unwrap detail.audit ")),
        (format!(r#"{{"detail":{{"audit":{}}}}}"#, quoted(event)), Some("--unwrap detail.audit ")),
        (
            format!(r#"{{"messages":[{{"message":{{"x":{}}}}}]}}"#, quoted(event)),
            Some("at .messages[].message.x: "),
        ),
        (format!(r#"{{"x":{},"kubernetes":{{"container_name":"app"}}}}"#, quoted(event)), None),
        (format!(r#"{{"\u001b[31m":{}}}"#, quoted(event)), None),
    ] {
        let text = format!("{object}\n[{object}]\n");
        let found = check(text.as_bytes());
        assert_eq!((found.events.num_rows(), reasons(&found)), (0, vec!["not_an_audit_event".to_owned(); 2]));
        for detail in details(&found) {
            match said {
                Some(said) => assert!(detail.contains(said), "{object}: {detail}"),
                None => assert!(!detail.contains("an audit event is "), "{object}: {detail}"),
            }
            assert!(!detail.contains(['\u{1b}', '{']), "{detail}");
        }
    }
}

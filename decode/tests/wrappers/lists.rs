//! Lists of events inside the layers that shippers put around them.

use super::*;

fn event_list(events: &[String]) -> String {
    let items = events.join(",");
    format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{items}]}}"#)
}

fn array(events: &[String]) -> String {
    format!("[{}]", events.join(", "))
}

/// Returns a text in the form in which each shipper sends it, with the shipper's name.
fn carried(text: &str) -> [(&'static str, String); 12] {
    let cri = format!("2026-03-02T10:00:00.000000001Z stdout F {text}");
    let fluent_bit = format!(r#"{{"date":1.5,"stream":"stdout","log":{}}}"#, quoted(&format!("{text}\n")));
    [
        ("CRI", cri.clone()),
        ("CRI after CRI", format!("2026-03-02T10:00:01Z stdout F {cri}")),
        ("syslog", format!("<133>Oct 21 10:37:55 node1 kube-apiserver[1]: {text}")),
        ("Logstash", format!(r#"{{"@timestamp":"t","@version":"1","message":{}}}"#, quoted(text))),
        ("Vector", format!(r#"{{"message":{},"path":"/","source_type":"http_server"}}"#, quoted(text))),
        ("Fluent Bit", fluent_bit.clone()),
        ("Fluentd", format!("2026-03-02T10:00:00+00:00\taudit.x\t{}", fluent_bit.replacen("date", "x", 1))),
        ("Filebeat of docker", format!(r#"{{"@timestamp":"t","message":{}}}"#, quoted(&fluent_bit))),
        ("Filebeat of CRI", format!(r#"{{"@timestamp":"t","message":{}}}"#, quoted(&cri))),
        ("string", format!("{} ", quoted(text))),
        ("Splunk", format!(r#"{{"event":{text},"sourcetype":"x","time":1}}"#)),
        ("Kafka Connect", format!(r#"{{"payload": {text} }}"#)),
    ]
}

#[test]
fn lists_in_layers_are_their_elements() {
    let events = lines(61, 5);
    for list in [event_list(&events), array(&events), event_list(&events[..1]), array(&events[..1])] {
        let count = if list.len() < event_list(&events[..2]).len() { 1 } else { 5 };
        for (shipper, line) in carried(&list) {
            let decoded = check(line.as_bytes());
            assert_eq!(reasons(&decoded), [""; 0], "{shipper}: {:?}", details(&decoded));
            same_events(&decoded, &events[..count]);
            let twice = format!("{line}\n{line}\n");
            same_events(&check(twice.as_bytes()), &[&events[..count], &events[..count]].concat());
        }
    }
}

/// Characters that are escaped in several ways, one inside the other.
#[test]
fn escapes_in_lists_in_layers() {
    let odd = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"a","verb":"get","userAgent":"\\ \" \n \u00e9 é 😀 \ud83d\ude00 \/ \u007f","requestObject":{"a":"\\\\"}}"#.to_owned();
    let events = [odd.clone(), lines(62, 1)[0].clone(), odd];
    for (shipper, line) in carried(&event_list(&events)) {
        let decoded = check(line.as_bytes());
        assert_eq!(reasons(&decoded), [""; 0], "{shipper}");
        same_events(&decoded, &events);
    }
    let escaped = |line: &str| line.replace('/', "\\/").replace('k', "\\u006b");
    let list = quoted(&event_list(&events));
    let line = format!(r#"{{"message":"{}"}}"#, escaped(list.trim_matches('"')));
    same_events(&check(line.as_bytes()), &events);
}

#[test]
fn documents_of_clouds_in_layers() {
    let events = lines(63, 3);
    let strings: Vec<String> = events.iter().map(|event| aks_string("kube-audit", event)).collect();
    let objects: Vec<String> = events.iter().map(|event| aks_record("kube-audit", event)).collect();
    for document in [batch(&strings), batch(&objects), array(&strings), eks(&events)] {
        for (shipper, line) in carried(&document) {
            let decoded = check(line.as_bytes());
            assert_eq!(reasons(&decoded), [""; 0], "{shipper}: {:?}", details(&decoded));
            same_events(&decoded, &events);
        }
    }
    // One record of a hub, as Filebeat divides them.
    for (shipper, line) in carried(&strings[0]) {
        same_events(&check(line.as_bytes()), &events[..1]);
        let _ = shipper;
    }
    let entries = [google("a", ""), google("b", "")];
    for (_, line) in carried(&array(&entries)) {
        let decoded = check(line.as_bytes());
        assert_eq!(decoded.events.num_rows(), 2, "{line}");
    }
}

#[test]
fn an_element_that_is_not_an_event_refuses_itself_alone() {
    let events = lines(64, 3);
    let list = [events[0].clone(), r#"{"kind":"Pod"}"#.to_owned(), events[1].clone(), "7".to_owned()];
    for (shipper, line) in carried(&event_list(&list)) {
        let decoded = check(format!("{line}\n{}\n", events[2]).as_bytes());
        same_events(&decoded, &events);
        assert_eq!(reasons(&decoded).len(), 2, "{shipper}");
    }
    let records = [aks_string("kube-audit", &events[0]), aks_string("guard", "x")];
    for (_, line) in carried(&batch(&records)) {
        let decoded = check(line.as_bytes());
        same_events(&decoded, &events[..1]);
        assert_eq!(reasons(&decoded), ["other_category"]);
    }
}

#[test]
fn an_element_of_a_document_may_be_a_list() {
    let events = lines(65, 4);
    let (first, second) = (event_list(&events[..2]), event_list(&events[2..]));
    for document in [
        format!(
            r#"{{"streams":[{{"stream":{{}},"values":[["1",{}],["2",{}]]}}]}}"#,
            quoted(&first),
            quoted(&second)
        ),
        format!(
            r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{{"stringValue":{}}}}},{{"body":{{"stringValue":{}}}}}]}}]}}]}}"#,
            quoted(&first),
            quoted(&second)
        ),
    ] {
        let decoded = check(document.as_bytes());
        assert_eq!(reasons(&decoded), [""; 0], "{:?}", details(&decoded));
        same_events(&decoded, &events);
    }
}

#[test]
fn a_list_of_another_writer_stays_a_reject() {
    let events = lines(66, 2);
    let list = event_list(&events);
    let pod = r#""kubernetes":{"namespace_name":"shop","container_name":"web"}"#;
    for line in [
        format!(r#"{{"log":{},{pod}}}"#, quoted(&list)),
        format!(r#"{{"log":{}}}"#, quoted(&list.replace("]}", &format!("],{pod}}}")))),
        format!("2026-03-02T10:00:00.000000001Z stderr F {list}"),
        format!("I0302 10:00:00.000001       1 server.go:100] {list}"),
        format!(r#"{{"kind":"Status","message":{}}}"#, quoted(&list)),
        format!(r#"  {}"#, quoted(&list)),
    ] {
        let decoded = check(format!("{line}\n").as_bytes());
        assert_eq!(decoded.events.num_rows(), 0, "{line}");
        assert!(decoded.rejects.num_rows() > 0, "{line}");
    }
}

/// A piece of a client's string looks like this.
#[test]
fn a_line_that_is_spelt_as_in_a_string_is_not_an_event() {
    let event = &lines(67, 1)[0];
    let once = quoted(event).trim_matches('"').to_owned();
    let twice = quoted(&once).trim_matches('"').to_owned();
    for line in [once.clone(), twice, format!("{once},"), format!("\\\"{once}\\\"")] {
        let decoded = check(format!("{line}\n").as_bytes());
        assert_eq!(decoded.events.num_rows(), 0, "{line}");
    }
}

/// A short line cannot become millions of rows through lists in lists.
#[test]
fn lists_in_layers_are_bounded() {
    let inner = format!(
        r#"{{"auditID":"requestURI audit.k8s.io","kind":"EventList","items":[{}]}}"#,
        ["{}"; 64].join(",")
    );
    let stream = format!(
        r#"{{"stream":{{}},"values":[{}]}}"#,
        vec![format!(r#"["1",{}]"#, quoted(&inner)); 500].join(",")
    );
    let decoded = check(stream.as_bytes());
    assert!(decoded.records() <= 64 + (stream.len() / 64) as u64 + 500, "{}", decoded.records());
}

#[test]
fn members_after_a_list_of_many_lines_name_its_writer() {
    let events = lines(68, 2);
    let list = |after: &str| {
        format!("{{\n\"kind\": \"EventList\",\n\"items\": [\n{}\n]{after}\n}}\n", events.join(",\n"))
    };
    let decoded = check(list(",\n\"kubernetes\": {\"container_name\": \"web\"}").as_bytes());
    same_events(&decoded, &events);
    assert_eq!(reasons(&decoded), ["untrusted_origin"]);
    for after in ["", ",\n\"metadata\": {}", ",\n\"kubernetes\": {\"container_name\": \"kube-apiserver\"}"] {
        let decoded = check(list(after).as_bytes());
        same_events(&decoded, &events);
        assert_eq!(reasons(&decoded), [""; 0], "{after}");
    }
}

/// Bytes that are not UTF-8 do not hide the writer who is named beside them.
#[test]
fn members_that_are_not_utf8_are_judged() {
    let event =
        r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"a","verb":"get","userAgent":"X"}"#;
    let web = r#""kubernetes":{"container_name":"web","x":"Y"}"#;
    let list = format!(r#"{{"kind":"EventList","items":[{event}],{web}}}"#);
    let single = format!("{},{web}}}", event.trim_end_matches('}'));
    let page = format!("{{\n\"kind\": \"EventList\",\n\"items\": [\n{event}\n],\n{web}\n}}\n");
    let broken = |text: &str, at: char| -> Vec<u8> {
        text.bytes().map(|byte| if byte == at as u8 { 0xff } else { byte }).collect()
    };
    for at in ['X', 'Y'] {
        let decoded = check(&broken(&list, at));
        assert_eq!(
            (decoded.events.num_rows(), reasons(&decoded)),
            (0, vec!["untrusted_origin".to_owned()]),
            "{at}"
        );
        let decoded = check(&broken(&page, at));
        assert_eq!(
            (decoded.events.num_rows(), reasons(&decoded)),
            (1, vec!["untrusted_origin".to_owned()]),
            "{at}"
        );
    }
    let decoded = check(&broken(&single, 'Y'));
    assert_eq!((decoded.events.num_rows(), reasons(&decoded)), (0, vec!["untrusted_origin".to_owned()]));
}

/// A client writes the text in an object of Kubernetes, which a shipper has in its `event`.
#[test]
fn the_text_of_an_object_of_kubernetes_is_not_an_event() {
    let event = &lines(70, 1)[0];
    for text in [event.clone(), event_list(from_ref(event))] {
        let text = quoted(&text);
        for line in [
            format!(r#"{{"event":{{"kind":"Event","apiVersion":"v1","metadata":{{}},"message":{text}}}}}"#),
            format!(r#"{{"verb":"ADDED","event":{{"metadata":{{"name":"x"}},"message":{text}}}}}"#),
            format!(
                r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{{"kvlistValue":{{"values":[{{"key":"apiVersion","value":{{"stringValue":"v1"}}}},{{"key":"message","value":{{"stringValue":{text}}}}}]}}}}}}]}}]}}]}}"#
            ),
        ] {
            assert_eq!(check(line.as_bytes()).events.num_rows(), 0, "{line}");
        }
        let of_ecs = format!(r#"{{"event":{{"kind":"event","original":{text}}}}}"#);
        assert_eq!(check(of_ecs.as_bytes()).events.num_rows(), 1, "{of_ecs}");
    }
}

#[test]
fn a_part_in_an_event_of_a_shipper_is_not_an_event() {
    let event = quoted(&lines(71, 1)[0]);
    for mark in [r#""logtag":"P""#, r#""partial_message":"true""#, r#""_p":"P","logtag":"P""#] {
        let line = format!(r#"{{"time":1,"event":{{"log":{event},{mark}}}}}"#);
        let decoded = check(line.as_bytes());
        assert_eq!(
            (decoded.events.num_rows(), reasons(&decoded)),
            (0, vec!["torn_line".to_owned()]),
            "{line}"
        );
    }
    let whole = format!(r#"{{"time":1,"event":{{"log":{event},"logtag":"F"}}}}"#);
    assert_eq!(check(whole.as_bytes()).events.num_rows(), 1);
}

#[test]
fn a_runtime_line_of_standard_error_with_an_empty_tag_is_not_an_event() {
    let event = &lines(72, 1)[0];
    for head in ["stderr F:", "stderr P:", "stdout P:", "stderr F", "stderr F:x"] {
        let decoded = check(format!("2026-03-02T10:00:00.1Z {head} {event}\n").as_bytes());
        assert_eq!(decoded.events.num_rows(), 0, "{head}");
    }
}

#[test]
fn lists_one_after_the_other_on_a_line() {
    let events = lines(73, 4);
    let hec = |events: &[String]| format!(r#"{{"time":1,"event":{}}}"#, event_list(events));
    let line = format!("{}{}", hec(&events[..2]), hec(&events[2..]));
    let decoded = check(line.as_bytes());
    assert_eq!(reasons(&decoded), [""; 0], "{:?}", details(&decoded));
    same_events(&decoded, &events);
}

#[test]
fn a_deep_entry_may_be_the_first_of_an_array() {
    let deep = google("deep", &format!(r#","request":{}"#, "[".repeat(200) + &"]".repeat(200)));
    let entries = [deep, google("b", ""), google("c", "")];
    for text in [array(&entries), array(&entries).replace("}, {", "},\n{")] {
        assert_eq!(check(text.as_bytes()).events.num_rows(), 3, "{text}");
    }
}

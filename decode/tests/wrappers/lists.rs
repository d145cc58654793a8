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

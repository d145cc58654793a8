//! Events that shippers, runtimes and loggers have wrapped, and documents of many lines.

use strongroom_lines::Dialect;

use super::*;

const TIME: &str = "2026-03-02T10:00:00.123456789Z";

/// Returns `event` in each dialect that has one event on a line, with the dialect that it is taken
/// for.
fn dialects(event: &str) -> Vec<(Dialect, String)> {
    let text = quoted(event);
    let line = quoted(&format!("{event}\n"));
    vec![
        (Dialect::Plain, event.to_owned()),
        (Dialect::StringLiteral, text.clone()),
        (Dialect::Syslog, format!("<133>Oct 21 10:37:55 node1 k8s-audit: {event}")),
        (Dialect::Syslog, format!("<110>1 {TIME} node1 kube-apiserver - - [a b=\"c\"] {event}")),
        (Dialect::Syslog, format!("Mon 2026-03-02 10:00:00 UTC node1 kube-apiserver[1]: {event}")),
        (Dialect::TimeAndEvent, format!("{TIME} {event}")),
        (Dialect::TimeAndEvent, format!("2026-01-01T00:00:00.000Z {event}")),
        (Dialect::CloudWatchTail, format!("{TIME} kube-apiserver-audit-0123abcd {event}")),
        (Dialect::Cri, format!("{TIME} stdout F {event}")),
        (Dialect::Docker, format!(r#"{{"log":{line},"stream":"stdout","time":"{TIME}"}}"#)),
        (Dialect::Filebeat, format!(r#"{{"@timestamp":"{TIME}","log":{{"offset":1}},"json":{event}}}"#)),
        (Dialect::Filebeat, format!(r#"{{"@timestamp":"{TIME}","log":{{"offset":1}},"message":{text}}}"#)),
        (
            Dialect::ElasticAgent,
            format!(r#"{{"@timestamp":"{TIME}","elastic_agent":{{}},"kubernetes":{{"audit":{event}}}}}"#),
        ),
        (Dialect::FluentBit, format!(r#"{{"date":1.5,"log":{text}}}"#)),
        (
            Dialect::FluentBit,
            format!(
                r#"{{"log":{line},"kubernetes":{{"container_name":"kube-apiserver","namespace_name":"kube-system"}}}}"#
            ),
        ),
        (Dialect::FluentBit, format!(r#"{{"date":1.5,"log_processed":{event},"log":7}}"#)),
        (
            Dialect::Vector,
            format!(r#"{{"file":"/var/log/audit.log","message":{text},"source_type":"file"}}"#),
        ),
        (Dialect::Logstash, format!(r#"{{"@timestamp":"{TIME}","@version":"1","message":{text}}}"#)),
        (Dialect::Splunk, format!(r#"{{"time":1.5,"sourcetype":"audit","event":{event}}}"#)),
        (Dialect::Journald, format!(r#"{{"PRIORITY":"6","MESSAGE":{text}}}"#)),
        (Dialect::Journald, format!(r#"{{"MESSAGE":{},"PRIORITY":"6"}}"#, bytes_of(event))),
        (Dialect::OpenShiftViaq, format!(r#"{{"@timestamp":"{TIME}","structured":{event}}}"#)),
        (Dialect::AzureLogAnalytics, format!(r#"{{"TimeGenerated":"{TIME}","log_s":{text}}}"#)),
        (Dialect::OtherWrapper, format!(r#"{{"payload":{text}}}"#)),
        (Dialect::Syslog, format!("@cee: {event}")),
        (Dialect::Syslog, format!("<133>Oct 21 10:37:55 node1 k8s-audit: @cee:{event}")),
        (Dialect::Fluentd, format!("2026-03-02T10:00:00+00:00\tk8s.audit\t{event}")),
        (
            Dialect::Fluentd,
            format!(
                "2026-03-02T10:00:00Z\tkube.var.log.containers.kube-apiserver-n1_kube-system_kube-apiserver-1a.log\t{{\"log\":{text}}}"
            ),
        ),
        (Dialect::CloudWatchTail, format!("2026-03-02T10:00:00 {event}")),
        (Dialect::Gelf, format!(r#"{{"version":"1.1","host":"n1","short_message":{text}}}"#)),
        (
            Dialect::Gelf,
            format!(
                r#"{{"version":"1.1","short_message":{},"full_message":{text},"_a":1}}"#,
                quoted(&event[..event.len() / 2])
            ),
        ),
        (
            Dialect::OpenTelemetry,
            format!(
                r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{{"kvlistValue":{{"values":[{{"key":"MESSAGE","value":{{"stringValue":{text}}}}}]}}}}}}]}}]}}]}}"#
            ),
        ),
        (
            Dialect::Loki,
            format!(r#"{{"stream":{{"source":"a"}},"values":[["1772445600000000000",{text}]]}}"#),
        ),
        (Dialect::Loki, format!(r#"{{"streams":[{{"stream":{{}},"values":[["1",{text},{{}}]]}}]}}"#)),
        (
            Dialect::CloudWatchCli,
            format!(r#"{{"events":[{{"timestamp":1,"message":{text},"ingestionTime":2}}]}}"#),
        ),
        (
            Dialect::OpenTelemetry,
            format!(
                r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{{"stringValue":{text}}}}}]}}]}}]}}"#
            ),
        ),
        (Dialect::Eks, eks(from_ref(&event.to_owned()))),
        (Dialect::Aks, aks_string("kube-audit", event)),
        (Dialect::Aks, aks_string("kube-apiserver", event)),
        (Dialect::Document, format!("[{event}]")),
        (Dialect::Document, format!("[\n  {event}\n]")),
        (Dialect::EventList, format!(r#"{{"kind":"EventList","items":[{event}]}}"#)),
    ]
}

/// Returns a text in the form that `journalctl` gives to a text with an unprintable character: a
/// list of bytes.
fn bytes_of(text: &str) -> String {
    format!("{:?}", text.as_bytes())
}

#[test]
fn entries_of_journald_that_have_no_whole_event() {
    let event = &lines(58, 1)[0];
    let text = quoted(event);
    let unit = r#""_SYSTEMD_UNIT":"kube-apiserver.service""#;
    for (entry, reason, detail) in [
        (format!(r#"{{"MESSAGE":null,{unit}}}"#), "not_an_audit_event", "journalctl --all"),
        (r#"{"MESSAGE":null,"_SYSTEMD_UNIT":"sshd.service"}"#.to_owned(), "other_category", "unit"),
        (format!(r#"{{"MESSAGE":{text},"_LINE_BREAK":"line-max"}}"#), "torn_line", "raise LineMax"),
        (
            format!(r#"{{"MESSAGE":{},"_SYSTEMD_UNIT":"sshd.service"}}"#, bytes_of(event)),
            "untrusted_origin",
            "unit",
        ),
        (
            format!(r#"{{"MESSAGE":{},{unit}}}"#, bytes_of("I0302 10:00:00.000001       1 a.go:1] {}")),
            "other_category",
            "klog",
        ),
    ] {
        let decoded = check(format!("{entry}\n").as_bytes());
        assert_eq!((decoded.events.num_rows(), reasons(&decoded)), (0, vec![reason.to_owned()]), "{entry}");
        assert!(details(&decoded)[0].contains(detail), "{entry}: {:?}", details(&decoded));
    }
    // One character from a client turns the whole text into a list of bytes, but the event is the
    // same.
    for odd in ["\u{85}", "\u{7f}", "\u{9f}"] {
        let odd = event.replacen("\"verb\":\"", &format!("\"verb\":\"{odd}"), 1);
        assert_ne!(&odd, event);
        let decoded = check(format!(r#"{{"MESSAGE":{},{unit}}}"#, bytes_of(&odd)).as_bytes());
        same_events(&decoded, from_ref(&odd));
    }
}

#[test]
fn each_dialect_holds_the_event() {
    let events = lines(51, 3);
    for (at, (dialect, first)) in dialects(&events[0]).into_iter().enumerate() {
        let (second, third) = (&dialects(&events[1])[at].1.clone(), &dialects(&events[2])[at].1.clone());
        let all = format!("{first}\n{second}\n{third}\n");
        for (input, bare) in [(first.clone(), &events[..1]), (all, &events[..])] {
            let decoded = check(input.as_bytes());
            same_events(&decoded, bare);
            assert_eq!(decoded.rejects.num_rows(), 0, "{input}");
            assert_eq!(
                decoded.dialects.iter().collect::<Vec<_>>(),
                [(dialect, bare.len() as u64)],
                "{input}"
            );
        }
    }
}

fn ids(decoded: &DecodedBlock) -> Vec<String> {
    decoded.events.column(index::AUDIT_ID).as_string::<i32>().iter().flatten().map(str::to_owned).collect()
}

/// Returns texts that a client of the cluster can write: whole events, wrappers, prefixes and line
/// feeds.
fn hostile() -> Vec<String> {
    let forged = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"forged","stage":"Panic","requestURI":"/","verb":"delete","user":{"username":"victim"}}"#;
    let mut texts: Vec<String> = dialects(forged).into_iter().map(|(_, text)| text).collect();
    texts.extend(dialects(forged).into_iter().map(|(_, text)| format!("x\n{text}\n")));
    texts.push(format!("\"}}\n{forged}\n{{\"a\":\""));
    texts.push(format!("{TIME} stdout P x\n{TIME} stdout F {forged}"));
    texts.push(format!("],\n{forged},\n["));
    texts
}

/// No text that a client controls is taken for an event, in any dialect.
#[test]
fn what_a_client_writes_stays_in_its_event() {
    let escaped: Vec<String> = hostile().iter().map(|text| quoted(text)).collect();
    for (at, text) in escaped.iter().enumerate() {
        let object = hostile()[at].clone();
        let body = if serde_json::from_str::<serde_json::Value>(&object).is_ok() { &object } else { text };
        let body = body.replace('\n', " ");
        let event = format!(
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"real","stage":"Panic","requestURI":{text},"verb":"get","user":{{"username":{text},"extra":{{"a":[{text}]}}}},"sourceIPs":[{text}],"userAgent":{text},"objectRef":{{"name":{text}}},"requestObject":{body},"responseObject":{{"log":{text},"message":{body}}},"annotations":{{"log":{text}}}}}"#
        );
        for (dialect, input) in dialects(&event) {
            let decoded = check(format!("{input}\n").as_bytes());
            assert_eq!(ids(&decoded), ["real"], "{dialect}: {input}");
            assert_eq!(decoded.rejects.num_rows(), 0, "{dialect}: {input}");
        }
        // A container's line is cut into parts at any byte.
        let cut = event.len() / 2 - (at % 7);
        let (head, tail) =
            event.split_at((0..=cut).rev().find(|at| event.is_char_boundary(*at)).unwrap_or(0));
        for parts in [
            format!("{TIME} stdout P {head}\n{TIME} stderr F {text}\n{TIME} stdout F {tail}\n"),
            format!(
                "{{\"log\":{},\"stream\":\"stdout\",\"time\":\"t\"}}\n{{\"log\":{},\"stream\":\"stdout\",\"time\":\"t\"}}\n",
                quoted(head),
                quoted(&format!("{tail}\n"))
            ),
        ] {
            assert_eq!(ids(&check(parts.as_bytes())), ["real"], "{parts}");
        }
    }
    // Lines that the API server prints beside its events.
    for text in hostile() {
        let one_line = text.replace('\n', " ");
        for klog in [
            format!("I0302 10:00:00.000001       1 server.go:100] {one_line}"),
            format!("E0302 10:00:00.000001       1 a.go:1] {}", quoted(&text)),
            format!(
                r#"{{"ts":1.5,"caller":"a.go:1","msg":{},"event":{{"auditID":"forged"}}}}"#,
                quoted(&text)
            ),
        ] {
            let log = format!("{klog}\n");
            for line in [
                klog.clone(),
                format!("{TIME} stderr F {klog}"),
                format!("{TIME} stdout F {klog}"),
                format!(r#"{{"log":{},"stream":"stderr","time":"t"}}"#, quoted(&log)),
                format!(r#"{{"log":{},"stream":"stdout","time":"t"}}"#, quoted(&log)),
                aks_record("kube-apiserver", &quoted(&log)),
                format!("<133>Oct 21 10:37:55 node1 kube-apiserver: {klog}"),
            ] {
                let decoded = check(format!("{line}\n").as_bytes());
                assert_eq!(decoded.events.num_rows(), 0, "{line}");
            }
        }
    }
}

#[test]
fn what_other_containers_write_is_refused() {
    let event = &lines(52, 1)[0];
    let text = quoted(event);
    for (input, detail) in [
        (format!("{TIME} stderr F {event}"), "standard error of a container"),
        (
            format!("{TIME}\tkube.var.log.containers.x_default_web-1a.log\t{event}"),
            "a container other than an API server: default/web",
        ),
        (
            format!(r#"{{"short_message":{text},"_container_name":"web"}}"#),
            "a container other than an API server: */web",
        ),
        (
            format!(
                r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{{"kvlistValue":{{"values":[{{"key":"_SYSTEMD_UNIT","value":{{"stringValue":"sshd.service"}}}},{{"key":"MESSAGE","value":{{"stringValue":{text}}}}}]}}}}}}]}}]}}]}}"#
            ),
            "a unit other than an API server's: sshd.service",
        ),
        (format!(r#"{{"log":{text},"stream":"stderr"}}"#), "standard error of a container"),
        (
            format!(r#"{{"log":{text},"kubernetes":{{"container_name":"web"}}}}"#),
            "a container other than an API server: */web",
        ),
        (
            format!(r#"{{"message":{text},"kubernetes":{{"namespace":"clinic"}}}}"#),
            "a container other than an API server: clinic/*",
        ),
        (
            format!(r#"{{"stream":{{"container":"web"}},"values":[["1",{text}]]}}"#),
            "a container other than an API server: */web",
        ),
        (
            format!(
                r#"{{"resourceLogs":[{{"resource":{{"attributes":[{{"key":"k8s.container.name","value":{{"stringValue":"web"}}}}]}},"scopeLogs":[{{"logRecords":[{{"body":{{"stringValue":{text}}}}}]}}]}}]}}"#
            ),
            "a container other than an API server: */web",
        ),
        (
            format!(r#"{{"events":[{{"logStreamName":"app","message":{text}}}]}}"#),
            "a log stream other than an API server's: app",
        ),
    ] {
        let decoded = check(format!("{input}\n").as_bytes());
        assert_eq!(decoded.events.num_rows(), 0, "{input}");
        assert_eq!(reasons(&decoded), ["untrusted_origin"], "{input}");
        assert_eq!(details(&decoded), [format!("an audit event from {detail}")], "{input}");
    }
    for (input, detail) in [
        (
            "I0302 10:00:00.000001       1 server.go:100] serving".to_owned(),
            "a line of klog, the log of Kubernetes' own programs",
        ),
        (format!("{TIME} stdout F serving"), "a line of a container that is not an event"),
    ] {
        let decoded = check(format!("{input}\n").as_bytes());
        assert_eq!(decoded.events.num_rows(), 0, "{input}");
        assert_eq!(reasons(&decoded), ["other_category"], "{input}");
        assert_eq!(details(&decoded), [detail], "{input}");
    }
}

#[test]
fn parts_of_a_line_are_joined() {
    let events = lines(53, 3);
    let cri = |flag: &str, text: &str| format!("{TIME} stdout {flag} {text}\n");
    let parts = |event: &str| {
        let (a, rest) = event.split_at(event.len() / 3);
        let (b, c) = rest.split_at(rest.len() / 2);
        format!("{}{}{}", cri("P", a), cri("P:tag", b), cri("F", c))
    };
    let log = format!("{}{}{}", parts(&events[0]), cri("F", &events[1]), parts(&events[2]));
    let decoded = check(log.as_bytes());
    same_events(&decoded, &events);
    assert_eq!(decoded.rejects.num_rows(), 0);
    let renderer = Renderer::new(&decoded.events).expect("columns");
    let mut record = Vec::new();
    renderer.record(0, &mut record).expect("a record");
    assert_eq!(record, parts(&events[0]).trim_end().as_bytes(), "the record is all lines of its parts");

    // If the last part is missing, each part is a reject of its own, and the event after them is
    // not lost.
    let alone = format!("{}{}{}", cri("P", &events[0][..50]), "x\n", cri("F", &events[1]));
    let decoded = check(alone.as_bytes());
    same_events(&decoded, &events[1..2]);
    assert_eq!(reasons(&decoded), ["torn_line", "broken_json"]);
    let decoded = check(cri("P", &events[0]).as_bytes());
    assert_eq!((decoded.events.num_rows(), reasons(&decoded)), (0, vec!["torn_line".to_owned()]));
}

#[test]
fn documents_of_many_lines_are_cut_into_events() {
    let events = lines(54, 5);
    let pretty = |event: &String| {
        let value: serde_json::Value = serde_json::from_str(event).expect("JSON");
        serde_json::to_string_pretty(&value).expect("JSON")
    };
    let texts: Vec<String> = events.iter().map(pretty).collect();
    for input in [
        format!("[\n{}\n]\n", texts.join(",\n")),
        format!("[{}]", events.join(",")),
        format!("[{}]\n", events.join(",\n")),
        format!("{}\n", texts.join("\n")),
        texts.join("\n\n"),
        format!(
            "{{\n\"kind\": \"EventList\",\n\"apiVersion\": \"audit.k8s.io/v1\",\n\"metadata\": {{}},\n\"items\": [\n{}\n]\n}}\n",
            texts.join(",\n")
        ),
        format!(
            "{{\n  \"events\": [\n{}\n  ],\n  \"searchedLogStreams\": []\n}}\n",
            events
                .iter()
                .map(|event| format!("{{\n\"timestamp\": 1,\n\"message\": {}\n}}", quoted(event)))
                .collect::<Vec<_>>()
                .join(",\n")
        ),
    ] {
        let decoded = check(input.as_bytes());
        assert_eq!(decoded.events.num_rows(), events.len(), "{input} {:?}", details(&decoded));
        assert_eq!(decoded.rejects.num_rows(), 0, "{input}");
        assert_eq!(ids(&decoded).len(), events.len());
        for (row, event) in events.iter().enumerate() {
            let expected = plain::decode(event.as_bytes(), DEPTH_MAX).expect("an event");
            assert_eq!(plain_row(&decoded.events, row).audit_id, expected.audit_id);
        }
    }
    // An array with one element that is not an event; then a torn document with lines after it.
    let decoded = check(format!("[\n{},\n{{\"a\":1}},\n{}\n]\n", texts[0], texts[1]).as_bytes());
    assert_eq!((decoded.events.num_rows(), reasons(&decoded)), (2, vec!["not_an_audit_event".to_owned()]));
    let decoded = check(format!("[\n{},\n{{\"a\":\"x\n{}\n{}\n", texts[0], events[1], events[2]).as_bytes());
    assert_eq!(decoded.events.num_rows(), 3, "{:?}", details(&decoded));
}

/// Decodes what follows `head` in a stream. The bytes of `head`, read in chunks of `chunk` bytes,
/// show where in a document the rest begins.
fn continued(head: &[u8], tail: &[u8], chunk: usize) -> DecodedBlock {
    let mut so_far = LineSoFar::default();
    head.chunks(chunk).for_each(|chunk| so_far.advance(chunk, LINE_BYTES_MAX));
    let block = Block {
        origin: Arc::new(Origin { partition: "p".into(), cluster: "c".into(), reading: Arc::default() }),
        offset: head.len() as i64,
        first_line: 1,
        bytes: tail.to_vec(),
        begins: so_far.edge(tail, LINE_BYTES_MAX),
        ends: Edge::Line,
        open_ended: false,
    };
    let mut decoder = Decoder::new(DecoderConfig::default());
    decoder.decode(&block, chrono::DateTime::UNIX_EPOCH).expect("columns")
}

/// However a document is divided, the state at each division is found again from the bytes before.
#[test]
fn a_document_may_be_continued_after_any_of_its_events() {
    let events = lines(55, 6);
    for document in [
        format!("[\n  {}\n]\n", events.join(",\n  ")),
        format!("[{}]", events.join(",")),
        format!("{{\n  \"events\": [ {} ]\n}}\n", events.join(" , ")),
        events.iter().map(|event| format!("{{\n{}\n", &event[1..])).collect::<String>(),
    ] {
        let whole = decode_bytes(document.as_bytes(), "c", "p").expect("columns");
        assert_eq!(whole.events.num_rows(), events.len());
        let is_list = !document.starts_with("{\n\"kind\"");
        let begun = document.match_indices("{\"kind\"").chain(document.match_indices("{\n\"kind\""));
        // The text before the first event of a list belongs to that event's page.
        for (at, _) in begun.skip(usize::from(is_list)) {
            let (head, tail) = document.as_bytes().split_at(at);
            for chunk in [1, 7, 1 << 20] {
                let rest = continued(head, tail, chunk);
                assert_eq!(rest.rejects.num_rows(), 0, "{at} {:?}", details(&rest));
                let left = ids(&whole)[events.len() - rest.events.num_rows()..].to_vec();
                assert_eq!(ids(&rest), left, "{at}");
                assert!(rest.events.num_rows() >= 1, "{at}");
            }
        }
    }
}

/// A client's text is alone on a line of a document that is printed over many lines. If the
/// document is torn, its lines are read one by one.
#[test]
fn a_line_of_a_torn_document_is_not_an_event() {
    let event = &lines(56, 1)[0];
    let text = quoted(event);
    for torn in [
        format!("{{\n  \"groups\": [\n    {text}\n  \"cut\n"),
        format!("  {text}\n"),
        format!("\t{text}\n"),
        format!("x\n {text} \n"),
    ] {
        let decoded = check(torn.as_bytes());
        assert_eq!(decoded.events.num_rows(), 0, "{torn}");
        assert!(reasons(&decoded).contains(&"torn_line".to_owned()), "{torn}");
    }
    same_events(&check(format!("{text} \n").as_bytes()), from_ref(event));
}

/// Rows that are only matched have the same columns as rows that are sealed, but no forms.
#[test]
fn rows_that_are_only_matched_have_no_forms() {
    let text: String =
        lines(72, 200).iter().map(|event| format!("{{\"log\":{}}}\n", quoted(event))).collect();
    let block = Block {
        origin: Arc::new(Origin { partition: "p".into(), cluster: "c".into(), reading: Arc::default() }),
        offset: 0,
        first_line: 1,
        bytes: text.as_bytes().to_vec(),
        begins: Edge::Line,
        ends: Edge::Line,
        open_ended: false,
    };
    let mut decoder = Decoder::new(DecoderConfig::default());
    for _ in 0..2 {
        let matched = decoder.decode_to_match(&block, chrono::DateTime::UNIX_EPOCH).expect("columns");
        let sealed = decoder.decode_to_seal(&block, chrono::DateTime::UNIX_EPOCH).expect("columns");
        assert_eq!(matched.events.column(index::FORM).null_count(), 200);
        assert_eq!(sealed.events.column(index::FORM).null_count(), 0);
        assert!(matched.record_hashes.is_empty());
        for decoded in [&matched, &sealed] {
            assert_eq!(rebuilt(decoded, text.len()), text.as_bytes());
        }
        for row in 0..200 {
            assert_eq!(plain_row(&matched.events, row), plain_row(&sealed.events, row));
        }
    }
}

fn docker(stream: &str, text: &str) -> String {
    format!("{{\"log\":{},\"stream\":\"{stream}\",\"time\":\"{TIME}\"}}\n", quoted(text))
}

/// Returns a client's patch with a whole event in its body, and where this event begins and ends.
fn patch_with_event() -> (String, usize, usize) {
    let forged = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"forged","stage":"Panic","requestURI":"/","verb":"delete","user":{"username":"victim"}}"#;
    let patch = format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"real","stage":"Panic","requestURI":"/x","verb":"patch","user":{{"username":"eve"}},"requestObject":["PAD",{forged}],"annotations":{{}}}}"#
    );
    let start = patch.find(forged).expect("the forged event is in the patch");
    (patch, start, start + forged.len())
}

#[test]
fn standard_error_between_the_parts_of_docker_costs_nothing() {
    let (patch, start, end) = patch_with_event();
    let pieces = [&patch[..start], &patch[start..end], &patch[end..]];
    let error = docker("stderr", "I0302 10:00:00.000001       1 log.go:245] TLS handshake error: EOF\n");
    let event = &lines(57, 1)[0];
    let log = format!(
        "{error}{}{error}{}{error}{error}{}{error}{}",
        docker("stdout", pieces[0]),
        docker("stdout", pieces[1]),
        docker("stdout", &format!("{}\n", pieces[2])),
        docker("stdout", &format!("{event}\n")),
    );
    let decoded = check(log.as_bytes());
    assert_eq!(ids(&decoded)[..1], ["real"]);
    assert_eq!((decoded.events.num_rows(), decoded.rejects.num_rows()), (2, 2), "{:?}", details(&decoded));
    assert!(reasons(&decoded).iter().all(|reason| reason == "other_category"));
    assert_eq!(plain_row(&decoded.events, 0).faults, None);
    // A block that ends between the parts is cut before the first of them.
    let first = error.len();
    for parts in 1..=5 {
        let end = log.match_indices('\n').nth(parts).expect("a line").0 + 1;
        let begins = strongroom_lines::frame::open_parts(&log.as_bytes()[..end], LINE_BYTES_MAX);
        assert_eq!(begins, Some(first), "after {parts}");
    }
}

#[test]
fn a_part_of_docker_is_not_an_event_alone() {
    let (patch, start, end) = patch_with_event();
    let event = &lines(58, 1)[0];
    let last = docker("stdout", &format!("{}\n", &patch[end..]));
    for log in [
        // A part that is a whole event, after a line of another log, and at the end of the stream.
        format!("{}x\n{}{last}", docker("stdout", &patch[..start]), docker("stdout", &patch[start..end])),
        docker("stdout", &patch[start..end]),
        docker("stdout", event),
        // A part that begins like an event, where nothing shows that the part is the first one.
        docker("stdout", &patch[start..end - 1]),
        docker("stdout", &patch[..start]),
        format!(r#"{{"date":1.5,"log":{},"stream":"stdout","time":"t"}}"#, quoted(event)),
    ] {
        let decoded = check(log.as_bytes());
        assert_eq!(ids(&decoded), [] as [&str; 0], "{log}");
        assert!(reasons(&decoded).iter().any(|reason| reason == "torn_line"), "{log}");
    }
    // A text with its line feed is whole. Fluentd keeps no time, so its text needs no line feed.
    for line in
        [docker("stdout", &format!("{event}\n")), format!(r#"{{"log":{},"stream":"stdout"}}"#, quoted(event))]
    {
        same_events(&check(line.as_bytes()), from_ref(event));
    }
}

#[test]
fn a_part_that_its_shipper_did_not_join_is_not_an_event() {
    let event = &lines(59, 1)[0];
    let detail = "a part of a line that its shipper did not join with the other parts";
    let carrier = |text: &str, mark: &str| format!(r#"{{"log":{},"stream":"stdout",{mark}}}"#, quoted(text));
    for mark in [
        r#""time":"t","logtag":"P""#,
        r#""logtag":"P:x""#,
        r#""attributes":{"logtag":"P"}"#,
        r#""_partial":true"#,
        r#""partial":"True""#,
        r#""partial_message":"true""#,
        r#""partial_message":"true","partial_ordinal":"2""#,
        r#""partial_message":"true","partial_ordinal":"1""#,
        r#""logtag":"P","partial_ordinal":"1""#,
        r#""CONTAINER_PARTIAL_MESSAGE":"true","CONTAINER_PARTIAL_ORDINAL":"3""#,
        r#""log.flags":["multiline","partial"]"#,
    ] {
        for text in [event.as_str(), &event[..event.len() - 1]] {
            let decoded = check(carrier(text, mark).as_bytes());
            assert_eq!(decoded.events.num_rows(), 0, "{mark}");
            assert_eq!(
                (reasons(&decoded), details(&decoded)),
                (vec!["torn_line".to_owned()], vec![detail.to_owned()]),
                "{mark}"
            );
        }
    }
    let flags = format!(r#"{{"@timestamp":"t","log":{{"flags":["partial"]}},"message":{}}}"#, quoted(event));
    let loki = format!(r#"{{"stream":{{"logtag":"P"}},"values":[["1",{}]]}}"#, quoted(event));
    let structured = format!(r#"{{"stream":{{}},"values":[["1",{},{{"logtag":"P"}}]]}}"#, quoted(event));
    let otlp = format!(
        r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{{"stringValue":{}}},"attributes":[{{"key":"a"}},{{"key":"logtag","value":{{"stringValue":"P"}}}}]}}]}}]}}]}}"#,
        quoted(event)
    );
    for line in [flags, loki, structured, otlp] {
        let decoded = check(line.as_bytes());
        assert_eq!((decoded.events.num_rows(), details(&decoded)), (0, vec![detail.to_owned()]), "{line}");
    }
    // Whole lines. When Fluent Bit joins the parts of a line, it keeps the tag of the first part.
    for mark in [
        r#""time":"t","logtag":"F""#,
        r#""time":"t","_p":"P""#,
        r#""_partial":false"#,
        r#""partial_message":"false""#,
        r#""log.flags":["multiline"]"#,
        r#""partial_ordinal":"2""#,
    ] {
        same_events(&check(carrier(event, mark).as_bytes()), from_ref(event));
    }
}

/// Each element of a list on one line is judged on its own, and a list that is cut gives the
/// elements before the cut.
#[test]
fn a_damaged_list_gives_its_whole_elements() {
    let events = lines(61, 3);
    let azure = |events: &[String]| {
        batch(&events.iter().map(|event| aks_string("kube-audit", event)).collect::<Vec<_>>())
    };
    let message = |event: &String| format!(r#"{{"timestamp":1,"message":{}}}"#, quoted(event));
    let messages = |events: &[String]| events.iter().map(message).collect::<Vec<_>>().join(",");
    let cli = |events: &[String]| format!(r#"{{"events":[{}]}}"#, messages(events));
    let loki = |events: &[String]| {
        let values: Vec<_> = events.iter().map(|event| format!(r#"["1",{}]"#, quoted(event))).collect();
        let labels = r#"{"container":"kube-apiserver"}"#;
        format!(r#"{{"streams":[{{"stream":{labels},"values":[{}]}}]}}"#, values.join(","))
    };
    let otlp = |events: &[String]| {
        let body = |event: &String| format!(r#"{{"body":{{"stringValue":{}}}}}"#, quoted(event));
        let records: Vec<_> = events.iter().map(body).collect();
        format!(
            r#"{{"resourceLogs":[{{"resource":{{}},"scopeLogs":[{{"logRecords":[{}]}}]}}]}}"#,
            records.join(",")
        )
    };
    let array = |events: &[String]| format!("[{}]", events.join(","));
    let list = |events: &[String]| {
        format!(r#"{{"kind":"EventList","metadata":{{}},"items":[{}]}}"#, events.join(","))
    };
    // The first line keeps the array from being read as pages.
    let first = &events[0];
    for (name, wrap) in [
        ("azure", &azure as &dyn Fn(&[String]) -> String),
        ("eks", &|events| eks(events)),
        ("cli", &cli),
        ("loki", &loki),
        ("otlp", &otlp),
        ("array", &array),
        ("list", &list),
    ] {
        let text = wrap(&events);
        // A byte that is not UTF-8 in the second event is a fault of its member.
        let audit_id = |event: &String| {
            let at = event.find(r#""auditID":""#).expect("an ID") + r#""auditID":""#.len();
            event[at..at + 36].to_owned()
        };
        let mut bytes = text.clone().into_bytes();
        let at = text.find(&audit_id(&events[1])).expect("the second event");
        bytes[at] = 0xff;
        let decoded = check(&[first.as_bytes(), b"\n", &bytes, b"\n"].concat());
        let found = ids(&decoded);
        assert!(found.contains(&audit_id(&events[2])), "{name} {:?}", details(&decoded));
        assert_eq!((decoded.events.num_rows(), decoded.rejects.num_rows()), (4, 0), "{name}");
        let faults = plain_row(&decoded.events, 2).faults;
        assert_eq!(faults, Some(vec!["/auditID: not_utf8".to_owned()]), "{name}");
        // Cut in the third event.
        let third = text.find(&audit_id(&events[2])).expect("the third event");
        for cut in [third, third + 60, text.len() - 30] {
            let decoded = check(format!("{first}\n{}\n", &text[..cut]).as_bytes());
            assert_eq!(decoded.events.num_rows(), 3, "{name} {cut} {:?}", details(&decoded));
            assert_eq!(reasons(&decoded), ["torn_line"], "{name}");
        }
        // Text that is not JSON ends the list.
        let is_bare = matches!(name, "array" | "list");
        let begin = text[..at].rfind(if is_bare { "{\"kind\"" } else { "{\\\"kind" });
        let begin = begin.expect("the second event");
        let broken = format!("{first}\n{}\u{1}{}\n", &text[..begin], &text[begin..]);
        let decoded = check(broken.as_bytes());
        assert_eq!(decoded.events.num_rows(), 2, "{name} {:?}", details(&decoded));
        assert_eq!(reasons(&decoded), ["torn_line"], "{name}");
        // The head does not say what kind of list it is.
        let headless = format!("{first}\n{}\n", &text[3..text.len() - 30]);
        assert_eq!(check(headless.as_bytes()).events.num_rows(), 1, "{name}");
    }
    // A cut list of a wrapper is not believed unless the text before the cut says that its lines
    // are an API server's audit log.
    for text in [
        loki(&events).replace(r#""stream":{"container":"kube-apiserver"},"#, ""),
        loki(&events).replace("kube-apiserver", "evil"),
        otlp(&events).replace(r#""resource":{},"#, ""),
        eks_stream("kube-apiserver-0123", &events),
    ] {
        let decoded = check(format!("{first}\n{}\n", &text[..text.len() - 40]).as_bytes());
        assert_eq!(decoded.events.num_rows(), 1, "{text}");
    }
    // Elements that are not events, and a surplus comma.
    let two = [events[1].as_str(), events[2].as_str()].join(",");
    for (text, expected) in [
        (format!("[{two},]"), &[][..]),
        (format!("[1,{two}]"), &["not_an_audit_event"]),
        (format!("[null,{two},\"x\"]"), &["not_an_audit_event"; 2]),
    ] {
        let decoded = check(format!("{first}\n{text}\n").as_bytes());
        same_events(&decoded, &events);
        assert_eq!(reasons(&decoded), expected, "{text}");
    }
    // An array that is followed by more text does not belong to a log: it may be in a piece of a
    // client's body.
    for text in [format!("[{two}],\"a\":1}}"), format!("[{two},],\"a\":1}}"), format!("[{two}]}}")] {
        let decoded = check(format!("{first}\n{text}\n").as_bytes());
        assert_eq!(decoded.events.num_rows(), 1, "{text}");
    }
}

/// If the last part of a line is missing, the event after it is not lost.
#[test]
fn parts_without_their_last_one_leave_the_next_event() {
    let events = lines(62, 3);
    let cri = |flag: &str, text: &str| format!("{TIME} stdout {flag} {text}\n");
    let error = format!("{TIME} stderr F E0101 serving\n");
    let cut = end_of_user(events[0].as_bytes());
    let (a, b) = events[0][..cut + 20].split_at(cut / 2);
    let first = format!("{}{}", cri("P", a), cri("P", b));
    let (c, d) = events[1].split_at(events[1].len() / 2);
    let in_parts = format!("{}{}", cri("P", c), cri("F", d));
    for (next, stderr) in [
        (cri("F", &events[1]), ""),
        (cri("F", &events[1]), error.as_str()),
        (in_parts.clone(), ""),
        (in_parts, error.as_str()),
    ] {
        let decoded = check(format!("{first}{stderr}{next}{}", cri("F", &events[2])).as_bytes());
        assert_eq!((decoded.events.num_rows(), decoded.rejects.num_rows()), (3, 0), "{next}");
        let event = plain_row(&decoded.events, 0);
        assert_eq!(event.faults, Some(vec![": not_json".to_owned()]));
        let offsets = decoded.events.column(index::SOURCE_OFFSET).as_primitive::<Int64Type>();
        assert_eq!(offsets.value(1) as usize, first.len() + stderr.len());
        for row in [1, 2] {
            let expected = plain::decode(events[row].as_bytes(), DEPTH_MAX).expect("an event");
            assert_eq!(plain_row(&decoded.events, row), expected);
        }
    }
    // Parts that do not say who asked for what give no event.
    let decoded = check(format!("{}{}{}", cri("P", &a[..9]), cri("P", "x"), cri("F", &events[1])).as_bytes());
    same_events(&decoded, &events[1..2]);
    assert_eq!(decoded.rejects.num_rows(), 1);
    // A client can make a part begin like an event. Such a part is not an event, whether or not
    // another part is missing.
    let nested = format!(r#"{{"kind":"Event","x":[{},1]}}"#, events[1]);
    let at = nested.find(&events[1]).expect("the event is in the nested text");
    let end = at + events[1].len();
    let parts = [cri("P", &nested[..at]), cri("P", &nested[at..end]), cri("F", &nested[end..])];
    for log in [parts.concat(), parts[..2].concat(), parts[1..].concat(), parts[1].repeat(2)] {
        assert_eq!(check(log.as_bytes()).events.num_rows(), 0, "{log}");
    }
}

/// An element that is not an event does not affect the others in a document of many lines, and
/// documents of all forms can follow each other.
#[test]
fn what_is_odd_in_a_document_costs_itself() {
    let events = lines(63, 4);
    let pretty = |event: &String| {
        let value: serde_json::Value = serde_json::from_str(event).expect("JSON");
        serde_json::to_string_pretty(&value).expect("JSON")
    };
    let texts: Vec<String> = events.iter().map(pretty).collect();
    let [a, b, c, d] = texts.as_slice() else { unreachable!("four events") };
    let [_, line_b, _, line_d] = events.as_slice() else { unreachable!("four events") };
    let array = |texts: &[&str]| format!("[\n{}\n]\n", texts.join(",\n"));
    let other = ["not_an_audit_event"];
    for (input, expected) in [
        (format!("\u{feff}{}", array(&[a, b, c, d])), &[][..]),
        (format!("\u{feff}{a}\n{b}\n{c}\n{d}\n"), &[]),
        (array(&[a, "null", b, c, d]), &other),
        (array(&["null", a, b, c, d]), &other),
        (array(&[a, b, c, d, "17"]), &other),
        (array(&["[7]", a, b, c, d]), &other),
        (array(&[a, "[1]", b, c, &format!("[{line_b}]"), d]), &["not_an_audit_event"; 2]),
        (format!("[]\n{}", array(&[a, b, c, d])), &[]),
        (format!("[\n]\n{}[]\n{}", array(&[a, b]), array(&[c, d])), &[]),
        (format!("{a}\n{line_b}\n{c}\n{line_d}\n"), &[]),
        (format!("{}{line_b}\n{}{line_d}\n", array(&[a]), array(&[c])), &[]),
        (format!("{a},\n{b},\n{c},\n{d}\n"), &[]),
        (format!("{a},\n{line_b},\n{c},\n{line_d}\n"), &[]),
    ] {
        let decoded = check(input.as_bytes());
        assert_eq!(decoded.events.num_rows(), 4, "{input} {:?}", details(&decoded));
        assert_eq!(reasons(&decoded), expected, "{input}");
        // The state after any byte is found again from the bytes before.
        let whole = ids(&decoded);
        let starts = decoded.events.column(index::SOURCE_OFFSET).as_primitive::<Int64Type>();
        for at in starts.values().iter().map(|at| *at as usize).filter(|at| *at > 4) {
            let (head, tail) = input.as_bytes().split_at(at);
            // A page has begun there already.
            if head.ends_with(b"[\n") || (head.ends_with(b",\n") && input.starts_with('{')) {
                continue;
            }
            for chunk in [1, 7, 1 << 20] {
                let rest = continued(head, tail, chunk);
                assert!(rest.events.num_rows() >= 1, "{at} {input}");
                assert_eq!(ids(&rest), whole[whole.len() - rest.events.num_rows()..], "{at}");
            }
        }
    }
    // An empty array alone is still read as a line.
    assert_eq!(reasons(&check(b"[]\n")), other);
}

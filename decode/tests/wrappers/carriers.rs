//! Lines after a carrier. The decoder opens such a line as a carrier before it tries it as an
//! event.
//!
//! Method: for lines of every kind, the rows and rejects of a line after a carrier equal those of
//! the line alone.

use super::*;

const EVENT: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"first","stage":"Panic","requestURI":"/","verb":"get","user":{},"requestReceivedTimestamp":null,"stageTimestamp":null}"#;

fn carriers() -> [String; 3] {
    let text = quoted(EVENT);
    [
        format!(r#"{{"message":{text},"host":"cp-1"}}"#),
        format!(r#"{{"log":{},"stream":"stdout","time":"now"}}"#, quoted(&format!("{EVENT}\n"))),
        format!(r#"{{"event":{{"original":{text}}}}}"#),
    ]
}

/// Checks that the rows and rejects of `line` after `carrier` equal those of `line` alone.
fn same_after(carrier: &str, line: &str) {
    let alone = decode_bytes(line.as_bytes(), "c", "p").expect("columns");
    let log = format!("{carrier}\n{line}");
    let after = decode_bytes(log.as_bytes(), "c", "p").expect("columns");
    assert_eq!(after.events.num_rows(), alone.events.num_rows() + 1, "{log}");
    for row in 0..alone.events.num_rows() {
        assert_eq!(plain_row(&after.events, row + 1), plain_row(&alone.events, row), "{log}");
    }
    assert_eq!((reasons(&after), details(&after)), (reasons(&alone), details(&alone)), "{log}");
    let count = |decoded: &DecodedBlock| -> u64 { decoded.dialects.iter().map(|(_, count)| count).sum() };
    assert_eq!(count(&after), count(&alone) + 1, "{log}");
    assert!(rebuilt(&after, log.len()) == log.as_bytes(), "{log}");
}

/// Returns lines of every kind in the test vectors.
fn lines_of_all_kinds() -> Vec<String> {
    let mut lines = Vec::new();
    for vectors in [
        include_str!("../../../tests/data/records/records.json"),
        include_str!("../../../tests/data/records/wrapped.json"),
    ] {
        let cases: Vec<serde_json::Value> = serde_json::from_str(vectors).expect("a list");
        lines.extend(cases.iter().filter_map(|case| case["record"].as_str().map(str::to_owned)));
    }
    // Lines that begin a document of many lines, or are parts of a line, are left out: the lines
    // before them change how they are framed.
    lines.retain(|line| line.starts_with('{') && !line.contains('\n'));
    lines
}

#[test]
fn lines_of_every_kind_are_decoded_as_if_alone() {
    let lines = lines_of_all_kinds();
    assert!(lines.len() > 600, "{}", lines.len());
    for line in &lines {
        for carrier in carriers() {
            same_after(&carrier, line);
        }
    }
}

#[test]
fn carriers_that_are_not_to_be_opened() {
    let (text, other) = (quoted(EVENT), quoted("{\"auditID\":\"b\"}"));
    for members in [
        r#""kind":"Event","apiVersion":"v1","#,
        r#""kind":"Event","#,
        r#""apiVersion":"audit.k8s.io/v1","#,
        r#""auditID":"x","#,
        r#""auditID":7,"#,
        r#""\u0061uditID":"x","#,
        r#""verb":"get","#,
        r#""user":{"username":"u"},"verb":"get","requestURI":"/","stage":"Panic","#,
        r#""method":"GET","requestURI":"/","#,
        r#""stream":"stderr","#,
        r#""kubernetes":{"container_name":"app"},"#,
        r#""records":[],"#,
        r#""ts":1,"caller":"x.go:1","#,
        r#""_partial":true,"#,
        r#""logtag":"P","#,
        r#""log":{"flags":["partial"]},"#,
        r#""level":"info","#,
        "",
    ] {
        for message in [&text, &other, &quoted("text"), &quoted("{"), &"7".to_owned(), &text[..40].to_owned()]
        {
            let line = format!("{{{members}\"message\":{message},\"n\":1}}");
            for carrier in carriers() {
                same_after(&carrier, &line);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn changed_carriers_are_decoded_as_if_alone(
        carrier in 0_usize..3,
        at in any::<prop::sample::Index>(),
        text in prop_oneof![
            Just(String::new()),
            "[\"\\\\{}\\[\\]:, nu0-9a-f]{1,3}",
            any::<char>().prop_filter("one line", |character| *character != '\n').prop_map(String::from),
        ],
        length in 0_usize..3,
    ) {
        let [first, second, third] = carriers();
        let line = [first, second, third.replace("first", "é\u{1f600}")][carrier].clone();
        let mut start = at.index(line.len());
        while !line.is_char_boundary(start) {
            start -= 1;
        }
        let mut end = (start + length).min(line.len());
        while !line.is_char_boundary(end) {
            end += 1;
        }
        // The first byte of a stream decides how it is cut into lines.
        prop_assume!(start > 0);
        same_after(&carriers()[0], &format!("{}{text}{}", &line[..start], &line[end..]));
    }
}

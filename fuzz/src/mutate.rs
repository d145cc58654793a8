//! Mutations of an input that keep most of its structure.
//!
//! Randomly flipped bytes seldom give JSON, so they test the parser's first lines and little else.
//! These mutations work on tokens: they drop, double, swap or replace a token, or insert a piece of
//! text that once broke a decoder somewhere. The result is a function of input and seed.

use std::ops::Range;

use super::random::Random;

/// Text that has meaning to a decoder of audit logs, or that decoders are known to trip over.
const AUDIT_WORDS: &[&str] = &[
    "\"kind\":\"Event\",",
    "\"kind\":\"EventList\",",
    "2026-03-02T10:00:00Z stdout F ",
    "2026-03-02T10:00:00Z stdout P ",
    "<110>1 - - - - - - ",
    "@cee: ",
    "2026-03-02T10:00:00Z\tk8s.audit\t",
    "{\"MESSAGE\":[123,34,",
    "{\"short_message\":\"",
    "}\0{",
    "}\n\u{feff}{",
    ",,",
    ",]",
    "][",
    "{\"log\":\"",
    "\",\"stream\":\"stdout\",\"time\":\"t\"}",
    "\"apiVersion\":\"audit.k8s.io/v1\",",
    "\"apiVersion\":\"audit.k8s.io/v1beta1\",",
    "\"metadata\":{},",
    "\"items\":[",
    "\"level\":\"Metadata\",",
    "\"level\":\"RequestResponse\",",
    "\"auditID\":\"a\",",
    "\"stage\":\"ResponseComplete\",",
    "\"stage\":null,",
    "\"stage\":\"Panic\",",
    "\"requestURI\":\"/a?b\\u0026c\",",
    "\"verb\":\"get\",",
    "\"user\":{},",
    "\"user\":null,",
    "\"user\":{\"username\":\"u\",\"uid\":\"1\",\"groups\":[\"g\"],\"extra\":{\"k\":[\"v\"]}},",
    "\"impersonatedUser\":{\"username\":\"i\"},",
    "\"impersonatedUser\":{},",
    "\"sourceIPs\":[\"10.0.0.1\",\"::1\"],",
    "\"sourceIPs\":[],",
    "\"sourceIPs\":null,",
    "\"userAgent\":\"kubectl\",",
    "\"objectRef\":{\"resource\":\"pods\",\"namespace\":\"n\",\"name\":\"x\",\"apiVersion\":\"v1\"},",
    "\"objectRef\":{\"resourceVersion\":\"1\\u0032\"},",
    "\"objectRef\":{},",
    "\"objectRef\":null,",
    "\"resourceVersion\":\"\",",
    "\"resourceVersion\":\"12\",",
    "\"responseStatus\":{\"metadata\":{},\"code\":200},",
    "\"responseStatus\":{\"metadata\":{}},",
    "\"responseStatus\":null,",
    "\"code\":-0",
    "\"code\":2147483648",
    "\"code\":2e2",
    "\"details\":{\"a\":1},",
    "\"details\":[],",
    "\"requestObject\":{\"a\":[1,2]},",
    "\"requestObject\":[{\"op\":\"add\"}],",
    "\"requestObject\":null,",
    "\"responseObject\":\"text\",",
    "\"requestReceivedTimestamp\":\"2026-03-02T10:00:00.000000Z\",",
    "\"stageTimestamp\":null,",
    "\"stageTimestamp\":\"2026-03-02T10:00:00Z\",",
    "\"stageTimestamp\":\"2026-03-02T10:00:00.123456789Z\",",
    "\"stageTimestamp\":\"2026-03-02T10:00:00.000000+01:00\"",
    "\"stageTimestamp\":\"0000-01-01T00:00:00.000000Z\"",
    "\"annotations\":{\"authorization.k8s.io/decision\":\"allow\",\"authorization.k8s.io/reason\":\"\"}",
    "\"annotations\":{\"authorization.k8s.io/decision\":null}",
    "\"annotations\":{},",
    "\"annotations\":null,",
    "\"\\u006bind\":\"Event\",",
    "\"\\u0061uditID\":\"x\",",
    "\"records\":[",
    "{\"messageType\":\"DATA_MESSAGE\",\"logStream\":\"kube-apiserver-audit-1\",\"logEvents\":[{\"message\":\"",
    "}{\"messageType\"",
    "{\"records\":[{\"category\":\"kube-audit\",\"properties\":{\"log\":",
    "2026-01-01T00:00:00.000Z {",
    "[Truncated...]",
    " AUDIT: id=\"",
    "{\"kind\":\"Event\"",
    "}{",
    "}\n{",
    "}\r\n{",
    "\n",
    "\n\n",
    "\r",
    "\0",
    " ",
    "\t",
    "\u{feff}",
    "\u{2028}",
    "\u{2029}",
    "\u{fffd}",
    "\u{10ffff}",
    "<",
    ">",
    "&",
    "\\u003c",
    "\\u2028",
    "\\u00e9",
    "\\/",
    "\\b",
    "\\f",
    "\\\\",
    "\\\"",
    "\\ud83d\\ude00",
    "\\ud800",
    "\\udc00\\ud800",
    "\\u0000",
    "\u{7f}",
    "\u{1}",
    "\\x",
    "\\u12",
    "[[[[[[[[",
    "]]]]]]]]",
    "{\"a\":",
    "{}",
    "[]",
    "\"\"",
    "null",
    "true",
    "false",
    "0",
    "-1",
    "01",
    "1.",
    "1e5",
    "1E+400",
    "-0.0",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999999",
    "NaN",
    "+1",
    ",",
    ":",
    "\"",
];

/// Text of rules, valid and nearly valid.
const RULE_WORDS: &[&str] = &[
    "title: x\n",
    "id: a\n",
    "name: b\n",
    "level: high\n",
    "level: worst\n",
    "status: test\n",
    "---\n",
    "logsource:\n",
    "  product: kubernetes\n",
    "  service: audit\n",
    "detection:\n",
    "  condition: selection\n",
    "  selection:\n",
    "    verb: get\n",
    "    verb:\n      - get\n      - list\n",
    "    objectRef.resource: secrets\n",
    "    responseStatus.code|lt: 400\n",
    "    responseStatus.code|gte: x\n",
    "|contains",
    "|startswith",
    "|endswith",
    "|all",
    "|re",
    "|re|i",
    "|cidr",
    "|base64",
    "|base64offset",
    "|wide",
    "|windash",
    "|cased",
    "|exists",
    "|fieldref",
    "|neq",
    "|gt",
    "|expand",
    "[any]",
    "[all]",
    "[none]",
    "    requestObject.spec.containers[any]:\n      image: '*'\n",
    "    pod.containers[all].image|contains: x\n",
    "1 of them",
    "all of sel*",
    "not 1 of filter_*",
    " and ",
    " or ",
    "not ",
    "(",
    ")",
    "((((((((",
    "correlation:\n",
    "  type: event_count\n",
    "  type: value_count\n",
    "  type: temporal\n",
    "  rules:\n    - b\n",
    "  group-by:\n    - actor\n",
    "  timespan: 5m\n",
    "  timespan: 0s\n",
    "  timespan: 99999d\n",
    "  condition:\n    gte: 3\n",
    "    field: objectRef.name\n",
    "    gte: -1\n",
    "    gte: 99999999999999999999\n",
    "  aliases:\n    a:\n      b: actor\n",
    "'*'",
    "'?'",
    "'\\*'",
    "'\\\\*'",
    "'(a+)+$'",
    "'[a-'",
    "'(?=x)'",
    "'a{1,9999}'",
    "10.0.0.0/8",
    "10.0.0.0/99",
    "::/0",
    "null",
    "~",
    "''",
    "true",
    "1.5",
    "1e999",
    "0x10",
    "&a ",
    "*a",
    "!!str ",
    "!!binary ",
    "<<: *a\n",
    "? ",
    "- - - -",
    "|\n",
    ">-\n",
    "{",
    "}",
    "[",
    "]",
    "{a: [b, {c: d}]}",
    "\t",
    "\u{feff}",
    "message: \"{actor} {count} {objectRef.name}\"\n",
    "message: \"{nothing}\"\n",
    "message: \"{{{\"\n",
    "tags:\n  - attack.t1552.007\n",
    "next_steps: x\n",
    "falsepositives: []\n",
    "#",
    ":",
    "\n",
    "  ",
    "\"",
    "'",
];

/// Text of patches, and of the objects that they change.
const PATCH_WORDS: &[&str] = &[
    "{\"op\":\"add\",\"path\":\"/metadata/labels/a\",\"value\":\"v\"}",
    "{\"op\":\"add\",\"path\":\"/metadata/annotations/z\",\"value\":{\"q\":{\"r\":1}}}",
    "{\"op\":\"replace\",\"path\":\"/metadata/labels\",\"value\":{}}",
    "{\"op\":\"remove\",\"path\":\"/metadata/labels\"}",
    "{\"op\":\"remove\",\"path\":\"/spec/template/spec/containers/0\"}",
    "{\"op\":\"move\",\"from\":\"/metadata/annotations\",\"path\":\"/metadata/labels\"}",
    "{\"op\":\"move\",\"from\":\"/metadata/annotations/z\",\"path\":\"/metadata/labels\"}",
    "{\"op\":\"copy\",\"from\":\"/metadata/labels\",\"path\":\"/metadata/annotations/z\"}",
    "{\"op\":\"test\",\"path\":\"/kind\",\"value\":\"Deployment\"}",
    "{\"op\":\"add\",\"path\":\"/spec/template/spec/containers/0\",\"value\":{\"s\":{\"p\":true}}}",
    "{\"op\":\"add\",\"path\":\"/rules/-\",\"value\":{\"verbs\":[\"*\"]}}",
    "{\"op\":\"replace\",\"path\":\"/rules/0/verbs/0\",\"value\":\"*\"}",
    "{\"op\":\"add\",\"path\":\"/data/a~1b\",\"value\":[[]]}",
    "\"add\"",
    "\"remove\"",
    "\"replace\"",
    "\"move\"",
    "\"copy\"",
    "\"test\"",
    "\"/spec/template/spec/containers/0/securityContext\"",
    "\"/spec/template/spec/containers/-\"",
    "\"/spec/template/spec/containers/1/args/-1\"",
    "\"/spec/template\"",
    "\"/metadata/labels\"",
    "\"/metadata/labels/a\"",
    "\"/rules/0\"",
    "\"/rules\"",
    "\"/subjects/0/name\"",
    "\"/data/0\"",
    "\"/data/-\"",
    "\"/data/a~1b/c~0d/1/e\"",
    "\"//\"",
    "\"/\"",
    "\"\"",
    "\"x/rules/+0\"",
    "\"from\":",
    "\"path\":",
    "\"value\":",
    "\"$patch\":\"replace\",",
    "\"@type\":\"k8s.io/Patch\",",
    "\\ud800",
    "\\u0000",
    "1e999",
    "-0",
    "99999999999999999999",
    "{\"a\":",
    "{}",
    "[]",
    "null",
    "true",
    "1",
    ",",
    "[[[[",
    "]",
    "}",
];

/// Mutates `data[..size]` as a request body; returns the new size.
pub fn patches(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    step(data, size, max_size, seed, PATCH_WORDS)
}

/// Mutates `data[..size]` as an audit log; returns the new size.
pub fn audit(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    step(data, size, max_size, seed, AUDIT_WORDS)
}

/// Mutates `data[..size]` as a rule file; returns the new size.
pub fn rules(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    step(data, size, max_size, seed, RULE_WORDS)
}

/// Mutates `data[..size]` token by token, with words that have meaning in its format; returns the new
/// size.
pub fn step(data: &mut [u8], size: usize, max_size: usize, seed: u32, words: &[&str]) -> usize {
    let mut random = Random(u64::from(seed) ^ 0x9e37_79b9_7f4a_7c15);
    let mut text = data[..size].to_vec();
    for _ in 0..=random.below(3) {
        let tokens = tokens(&text);
        let one = |random: &mut Random| match tokens.len() {
            0 => 0..0,
            count => tokens[random.below(count)].clone(),
        };
        let (first, second) = (one(&mut random), one(&mut random));
        let word = words[random.below(words.len())].as_bytes();
        match random.below(9) {
            0 => drop(text.drain(first)),
            1 => {
                let copy = text[first.clone()].to_vec();
                text.splice(first.start..first.start, copy);
            }
            2 => {
                let copy = text[second].to_vec();
                text.splice(first, copy);
            }
            3 | 4 => drop(text.splice(first, word.iter().copied())),
            5 | 6 => drop(text.splice(first.start..first.start, word.iter().copied())),
            7 => {
                // From one token to another: a whole member, an object, a line.
                let range = first.start.min(second.start)..first.end.max(second.end);
                let copy = text[range].to_vec();
                let at = one(&mut random).start;
                text.splice(at..at, copy);
            }
            _ => text.truncate(first.start + random.below(first.len() + 1)),
        }
    }
    let size = text.len().min(max_size);
    data[..size].copy_from_slice(&text[..size]);
    size
}

/// Returns the tokens: runs of characters of one kind, and whole strings.
fn tokens(text: &[u8]) -> Vec<Range<usize>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let start = at;
        let is_word = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/') || byte >= 0x80
        };
        at += 1;
        if text[start] == b'"' {
            while at < text.len() && text[at] != b'"' && text[at] != b'\n' {
                at += if text[at] == b'\\' { 2 } else { 1 };
            }
            at = (at + 1).min(text.len());
        } else if is_word(text[start]) {
            while at < text.len() && is_word(text[at]) {
                at += 1;
            }
        }
        tokens.push(start..at);
    }
    tokens
}

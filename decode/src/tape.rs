//! A simd-json tape with the extent of every value.
//!
//! A tape has the values of a document, but not their positions. Bodies are kept as slices of the
//! input, and repeated objects are recognised by their text, so both need extents. Extents follow
//! from the positions of the keys, because simd-json leaves each key where it was in the buffer. A
//! value begins after its key's colon, and ends before the comma that precedes the next key. A key
//! written with escapes is not where it seems to be; [`members`] then returns [`Odd`], and the
//! caller uses the slow decoder for that line.
//!
//! Invariant: an extent is exactly the text of the value, without white space around it. Only
//! buffers are kept between lines.

use simd_json::{Buffers, Node, Tape};

/// The document has a form that this module does not support, although it may be valid.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Odd;

/// One member of an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    /// Offset of the key's first character.
    pub(crate) key_at: usize,
    pub(crate) key_len: usize,
    /// Index of the value's node.
    pub(crate) node: usize,
    /// Extent of the value in the line.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Member {
    /// Returns the key. It has no escapes: an object that has a key with escapes is [`Odd`].
    pub(crate) fn key<'l>(&self, line: &'l [u8]) -> &'l [u8] {
        &line[self.key_at..self.key_at + self.key_len]
    }
}

/// Buffers of the parser, reused from line to line.
pub(crate) struct Parser {
    buffers: Buffers,
    scratch: Vec<u8>,
    tape: Tape<'static>,
}

impl Parser {
    pub(crate) fn new(line_bytes: usize, depth_max: usize) -> Self {
        Parser {
            buffers: Buffers::with_max_depth(line_bytes, depth_max),
            scratch: Vec::with_capacity(line_bytes + simd_json::INPUT_PADDING),
            tape: Tape(Vec::new()),
        }
    }

    /// Parses `line` and hands its nodes to `read`, with the address that key offsets count from.
    pub(crate) fn parse<T>(
        &mut self,
        line: &[u8],
        read: impl FnOnce(&[Node<'_>], usize) -> T,
    ) -> Result<T, simd_json::Error> {
        self.scratch.clear();
        self.scratch.extend_from_slice(line);
        self.scratch.resize(line.len() + simd_json::INPUT_PADDING, b' ');
        let base = self.scratch.as_ptr() as usize;
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let parsed = simd_json::fill_tape_padded(&mut self.scratch, line.len(), &mut self.buffers, &mut tape);
        let outcome = parsed.map(|()| read(&tape.0, base));
        self.tape = tape.reset();
        outcome
    }
}

/// Returns the number of nodes that a value takes on the tape.
pub(crate) fn width(node: &Node<'_>) -> usize {
    match node {
        Node::Object { count, .. } | Node::Array { count, .. } => count + 1,
        Node::String(_) | Node::Static(_) => 1,
    }
}

/// Lists the members of the object at `node` in `out`. The object's text ends at `end`, after its
/// closing brace.
pub(crate) fn members(
    nodes: &[Node<'_>],
    base: usize,
    line: &[u8],
    node: usize,
    end: usize,
    out: &mut Vec<Member>,
) -> Result<(), Odd> {
    out.clear();
    let Some(Node::Object { len, .. }) = nodes.get(node) else { return Err(Odd) };
    let mut at = node + 1;
    for _ in 0..*len {
        let (Some(Node::String(key)), Some(value)) = (nodes.get(at), nodes.get(at + 1)) else {
            return Err(Odd);
        };
        let key_at = (key.as_ptr() as usize).wrapping_sub(base);
        let after = key_at.wrapping_add(key.len());
        if key_at == 0
            || line.get(key_at - 1) != Some(&b'"')
            || line.get(key_at..after) != Some(key.as_bytes())
            || line.get(after) != Some(&b'"')
        {
            return Err(Odd);
        }
        let colon = skip_white(line, after + 1);
        if line.get(colon) != Some(&b':') {
            return Err(Odd);
        }
        let start = skip_white(line, colon + 1);
        if let Some(before) = out.last_mut() {
            before.end = value_end(line, key_at - 1, b',')?;
        }
        out.push(Member { key_at, key_len: key.len(), node: at + 1, start, end: 0 });
        at += 1 + width(value);
    }
    if let Some(last) = out.last_mut() {
        last.end = value_end(line, end, b'}')?;
    }
    if out.iter().any(|member| member.start >= member.end) {
        return Err(Odd);
    }
    Ok(())
}

/// Returns where the value before `at` ends. Between the value and `at` there are only `mark` and
/// white space.
fn value_end(line: &[u8], at: usize, mark: u8) -> Result<usize, Odd> {
    let marked = trim_white(line, at);
    if marked == 0 || line[marked - 1] != mark {
        return Err(Odd);
    }
    Ok(trim_white(line, marked - 1))
}

fn skip_white(line: &[u8], mut at: usize) -> usize {
    while matches!(line.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

/// Returns the end of `line[..end]` without trailing white space.
pub(crate) fn trim_white(line: &[u8], mut end: usize) -> usize {
    while end > 0 && matches!(line.get(end - 1), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        end -= 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Result<Vec<(String, String)>, Odd> {
        let mut parser = Parser::new(64, 128);
        parser
            .parse(line.as_bytes(), |nodes, base| {
                let mut out = Vec::new();
                members(nodes, base, line.as_bytes(), 0, line.len(), &mut out)?;
                Ok(out
                    .iter()
                    .map(|m| {
                        (
                            String::from_utf8_lossy(m.key(line.as_bytes())).into_owned(),
                            line[m.start..m.end].to_owned(),
                        )
                    })
                    .collect())
            })
            .expect("valid JSON")
    }

    #[test]
    fn extents_are_exact() {
        let line = r#" {"a" : {"x":[1,{"y":"}"}]} , "b":"q\"\u0041" ,"c":-1.50e3, "d":null,"e":[]} "#;
        let found = texts(line).expect("followed");
        let expected = [
            ("a", r#"{"x":[1,{"y":"}"}]}"#),
            ("b", r#""q\"\u0041""#),
            ("c", "-1.50e3"),
            ("d", "null"),
            ("e", "[]"),
        ];
        assert_eq!(found, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!(texts("{}").expect("empty"), []);
    }

    #[test]
    fn escaped_keys_are_odd() {
        assert_eq!(texts(r#"{"\u0061":1}"#), Err(Odd));
    }
}

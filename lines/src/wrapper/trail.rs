//! Leads from a text inside layers back to where its bytes are in the outermost text.
//!
//! A text in a string is escaped in the text around it, once for each string on the way. Invariant:
//! [`Trail::locate`] gives the bytes of the outermost text that spell exactly the bytes asked for.
//! It gives nothing where that is not certain. One pass is made over each string, so the work is
//! linear in the outermost text. Nothing is kept here.

use std::ops::Range;

/// How one layer has its text.
#[derive(Clone, Copy)]
pub(super) enum Step<'t> {
    /// There is no layer.
    Start,
    /// As a part of the text around it, from this byte on.
    Part(usize),
    /// Escaped in a string. `literal` has the quotes and is a part of the text around it, from `at`
    /// on. The first `skipped` bytes of its text are left out.
    String { literal: &'t [u8], at: usize, skipped: usize },
}

impl<'t> Step<'t> {
    /// Returns the text in `literal`, which is a slice of `outer`.
    pub(super) fn string(outer: &[u8], literal: &'t [u8], skipped: usize) -> Step<'t> {
        Step::String { literal, at: offset(outer, literal), skipped }
    }
}

/// The layers around a text, the innermost first.
pub(super) struct Trail<'t> {
    around: Option<&'t Trail<'t>>,
    step: Step<'t>,
}

/// Where parts of an inner text are in the outermost one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Located {
    pub(super) parts: Vec<Range<usize>>,
    /// How many strings they are in.
    pub(super) strings: usize,
}

impl<'t> Trail<'t> {
    pub(super) const START: Trail<'static> = Trail { around: None, step: Step::Start };

    pub(super) const fn after(around: &'t Trail<'t>, step: Step<'t>) -> Trail<'t> {
        Trail { around: Some(around), step }
    }

    /// Returns where `parts` of the text at the end of the trail are in the outermost text. They
    /// follow each other, and do not overlap.
    pub(super) fn locate(&self, mut parts: Vec<Range<usize>>) -> Option<Located> {
        let (mut trail, mut strings) = (Some(self), 0);
        while let Some(Trail { around, step }) = trail {
            match *step {
                Step::Start => {}
                Step::Part(from) => {
                    for part in &mut parts {
                        *part = part.start.checked_add(from)?..part.end.checked_add(from)?;
                    }
                }
                Step::String { literal, at, skipped } => {
                    strings += 1;
                    let mut spelling = Spelling { literal, read: 1, text: 0 };
                    for part in &mut parts {
                        let start = spelling.reach(part.start.checked_add(skipped)?)?;
                        let end = spelling.reach(part.end.checked_add(skipped)?)?;
                        *part = start.checked_add(at)?..end.checked_add(at)?;
                    }
                }
            }
            trail = *around;
        }
        Some(Located { parts, strings })
    }
}

/// Returns where `part`, which is a slice of `text`, begins.
pub(super) fn offset(text: &[u8], part: &[u8]) -> usize {
    (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize)
}

/// A position in a string literal and in its text.
struct Spelling<'t> {
    literal: &'t [u8],
    read: usize,
    text: usize,
}

impl Spelling<'_> {
    /// Returns where the byte `wanted` of the text begins in the literal. `None` if it is behind, or
    /// inside a character that an escape spells.
    fn reach(&mut self, wanted: usize) -> Option<usize> {
        while self.text < wanted {
            let rest = self.literal.get(self.read..)?;
            let plain = memchr::memchr(b'\\', rest).unwrap_or(rest.len()).min(wanted - self.text);
            self.read += plain;
            self.text += plain;
            if self.text == wanted {
                break;
            }
            let (spelt, bytes) = escape(self.literal.get(self.read..)?)?;
            self.read += spelt;
            self.text += bytes;
        }
        (self.text == wanted && self.read < self.literal.len()).then_some(self.read)
    }
}

/// Returns how many bytes the escape at the beginning of `text` has, and how many bytes in UTF-8 the
/// character that it stands for.
fn escape(text: &[u8]) -> Option<(usize, usize)> {
    if text.get(1)? != &b'u' {
        return Some((2, 1));
    }
    let unit = |at: usize| {
        let digits = std::str::from_utf8(text.get(at..at + 4)?).ok()?;
        u16::from_str_radix(digits, 16).ok()
    };
    let first = unit(2)?;
    if let 0xd800..=0xdbff = first
        && text.get(6..8) == Some(b"\\u")
        && let Some(0xdc00..=0xdfff) = unit(8)
    {
        return Some((12, 4));
    }
    // A surrogate that stands alone becomes three bytes.
    Some((6, char::from_u32(first.into()).map_or(3, char::len_utf8)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_part_of_a_part() {
        let inner = Trail::after(&Trail::START, Step::Part(3));
        let innermost = Trail::after(&inner, Step::Part(4));
        let located = innermost.locate(vec![1..2, 5..9]).expect("both");
        assert_eq!(located, Located { parts: vec![8..9, 12..16], strings: 0 });
    }

    #[test]
    fn what_an_escape_spells_is_not_divided() {
        let literal = "\"a\\u00e9\\ud83d\\ude00\\n\"".as_bytes();
        let trail = Trail::after(&Trail::START, Step::String { literal, at: 0, skipped: 0 });
        assert_eq!(trail.locate(vec![0..1, 3..7, 7..8]).expect("all").parts, vec![1..2, 8..20, 20..22]);
        for within in [2, 4, 5, 6] {
            assert_eq!(trail.locate(std::iter::once(0..within).collect()), None, "{within}");
        }
        assert_eq!(trail.locate(std::iter::once(0..9).collect()), None);
    }

    proptest! {
        /// A part that is found is spelt as serde_json spells it, in two strings, one in the other.
        #[test]
        fn parts_in_strings(
            text in "[a-z\"\\\\\\n\u{7f}é😀{}]{1,40}",
            before in "[ -~]{0,8}",
            cuts in proptest::collection::vec(0_usize..60, 2),
        ) {
            let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            let cuts = [ends[cuts[0] % ends.len()], ends[cuts[1] % ends.len()]];
            let (from, to) = (cuts[0].min(cuts[1]), cuts[0].max(cuts[1]));
            let once = serde_json::to_string(&text).expect("a string");
            let middle = format!("{before}{once}");
            let twice = serde_json::to_string(&middle).expect("a string");
            let outer = format!("{before}{twice} ");

            let literal = &outer.as_bytes()[before.len()..before.len() + twice.len()];
            let first = Step::string(outer.as_bytes(), literal, 0);
            let inner = Trail::after(&Trail::START, first);
            let second = Step::string(middle.as_bytes(), &middle.as_bytes()[before.len()..], 0);
            let located = Trail::after(&inner, second).locate(std::iter::once(from..to).collect()).expect("a part");

            prop_assert_eq!(located.strings, 2);
            let spelt = &outer[located.parts[0].clone()];
            let unescaped = |text: &str| serde_json::from_str::<String>(&format!("\"{text}\"")).expect(text);
            prop_assert_eq!(unescaped(&unescaped(spelt)), &text[from..to]);
        }
    }
}

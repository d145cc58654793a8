//! Thrift's compact protocol, read without trust: the headers of pages, and whether a footer is
//! well-formed.
//!
//! Invariant: no length that the bytes state is believed before that many bytes are there. So a
//! footer or a header that passes makes no later reader reserve more than a multiple of its length.

use super::Fault;

/// Maximum depth of structs and lists. Parquet's own have less than 10.
const DEPTH_MAX: usize = 24;
/// Maximum number of elements in all lists of one footer: row groups, columns, and what they list.
const ELEMENTS_MAX: usize = 4 << 20;
/// Maximum number of elements, and of levels, of a schema. A Delta checkpoint has the most.
const SCHEMA_ELEMENTS_MAX: usize = 1024;
const SCHEMA_DEPTH_MAX: usize = 16;
/// Longest header of a page. A header repeats at most the least and the greatest value of its page.
pub(super) const HEADER_BYTES_MAX: usize = 1 << 20;

const TRUE: u8 = 1;
const FALSE: u8 = 2;
const I32: u8 = 5;
const LIST: u8 = 9;
const STRUCT: u8 = 12;
/// Number of the schema in a footer, and in an element of it, of the number of its children.
const SCHEMA: i64 = 2;
const CHILDREN: i64 = 5;

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    DataV2,
    Dictionary,
    /// Readers skip it.
    Other,
}

/// The header of a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageHeader {
    pub(super) kind: Kind,
    /// Length of the page before compression, with its levels.
    pub(super) size: usize,
    /// Length of the page in the file.
    pub(super) stored: usize,
    /// Number of values, nulls included.
    pub(super) values: u64,
    pub(super) encoding: i64,
    pub(super) definition_encoding: i64,
    pub(super) repetition_encoding: i64,
    /// Only in version 2: length of both kinds of levels, which are not compressed.
    pub(super) levels_bytes: usize,
    pub(super) is_compressed: bool,
}

/// The members of a header that are numbers, by the number of their struct and their own.
#[derive(Default)]
struct Numbers([[Option<i64>; 8]; 9]);

impl Numbers {
    fn of(&self, group: usize, member: usize) -> Option<i64> {
        self.0.get(group)?.get(member).copied().flatten()
    }

    fn set(&mut self, group: usize, member: i64, value: i64) {
        let member = usize::try_from(member).ok();
        let place = member.and_then(|member| self.0.get_mut(group)?.get_mut(member));
        if let Some(place) = place {
            *place = Some(value);
        }
    }
}

/// Reads the header at the beginning of `bytes`; returns it with its length.
pub(super) fn page_header(bytes: &[u8]) -> Result<(PageHeader, usize), Fault> {
    let mut input = Input::new(bytes.get(..HEADER_BYTES_MAX).unwrap_or(bytes));
    let mut numbers = Numbers::default();
    let malformed = || Fault::Malformed { what: "the header of a page" };
    input
        .members(0, &mut |input, id, kind| match (kind, usize::try_from(id)) {
            (STRUCT, Ok(group @ (5 | 7 | 8))) => {
                let mut nested = 0;
                input.members(1, &mut |input, id, kind| {
                    nested += 1;
                    match kind {
                        TRUE | FALSE => numbers.set(group, id, i64::from(kind == TRUE)),
                        I32 => numbers.set(group, id, input.zigzag()?),
                        _ => input.skip(kind, 2)?,
                    }
                    Some(())
                })
            }
            (I32, Ok(_)) => {
                numbers.set(0, id, input.zigzag()?);
                Some(())
            }
            _ => input.skip(kind, 1),
        })
        .ok_or_else(malformed)?;
    let (kind, group) = match numbers.of(0, 1) {
        Some(0) => (Kind::Data, 5),
        Some(2) => (Kind::Dictionary, 7),
        Some(3) => (Kind::DataV2, 8),
        Some(_) => (Kind::Other, 0),
        None => return Err(malformed()),
    };
    let size = |group, member| {
        let size = numbers.of(group, member).and_then(|size| i32::try_from(size).ok());
        size.and_then(|size| usize::try_from(size).ok()).ok_or_else(malformed)
    };
    let encoding = |member| numbers.of(group, member).unwrap_or(-1);
    let header = PageHeader {
        kind,
        size: size(0, 2)?,
        stored: size(0, 3)?,
        values: if kind == Kind::Other { 0 } else { size(group, 1)? as u64 },
        encoding: encoding(if kind == Kind::DataV2 { 4 } else { 2 }),
        definition_encoding: encoding(3),
        repetition_encoding: encoding(4),
        levels_bytes: if kind == Kind::DataV2 {
            size(8, 5)?.checked_add(size(8, 6)?).ok_or_else(malformed)?
        } else {
            0
        },
        is_compressed: kind != Kind::DataV2 || numbers.of(8, 7) != Some(0),
    };
    Ok((header, input.at))
}

/// Checks that `bytes` are one struct, whose lists fit into the bytes that are there, and whose
/// schema is not nested deeply: readers of a schema call themselves for each level.
pub(super) fn check_footer(bytes: &[u8]) -> Result<(), Fault> {
    let mut input = Input::new(bytes);
    // For each element of the schema, the number of the elements in it.
    let mut children = Vec::new();
    input
        .members(0, &mut |input, id, kind| match (id, kind) {
            (SCHEMA, LIST) => {
                let (count, kind) = input.list()?;
                input.take_elements(count)?;
                for _ in 0..count {
                    let mut inner = 0;
                    match kind {
                        STRUCT => input.members(1, &mut |input, id, kind| match (id, kind) {
                            (CHILDREN, I32) => {
                                inner = input.zigzag()?;
                                Some(())
                            }
                            _ => input.skip(kind, 2),
                        })?,
                        _ => input.element(kind, 1)?,
                    }
                    children.push(inner);
                }
                Some(())
            }
            _ => input.skip(kind, 1),
        })
        .filter(|()| is_flat(&children))
        .ok_or(Fault::Malformed { what: "the footer" })
}

/// Whether a schema, given by the number of elements in each of its elements, has few of them in
/// few levels.
fn is_flat(children: &[i64]) -> bool {
    // What is left to come at each level.
    let mut left: Vec<i64> = Vec::new();
    children.len() <= SCHEMA_ELEMENTS_MAX
        && children.iter().all(|inner| {
            while left.last() == Some(&0) {
                left.pop();
            }
            if let Some(left) = left.last_mut() {
                *left -= 1;
            }
            if *inner > 0 {
                left.push(*inner);
            }
            left.len() <= SCHEMA_DEPTH_MAX
        })
}

struct Input<'b> {
    bytes: &'b [u8],
    at: usize,
    /// Elements of lists so far.
    elements: usize,
}

impl<'b> Input<'b> {
    fn new(bytes: &'b [u8]) -> Self {
        Input { bytes, at: 0, elements: 0 }
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied();
        self.at += usize::from(byte.is_some());
        byte
    }

    fn varint(&mut self) -> Option<u64> {
        varint(self.bytes, &mut self.at)
    }

    fn zigzag(&mut self) -> Option<i64> {
        self.varint().map(unzigzag)
    }

    /// Passes over `count` bytes that must be there.
    fn pass(&mut self, count: u64) -> Option<()> {
        let end = self.at.checked_add(usize::try_from(count).ok()?)?;
        (end <= self.bytes.len()).then(|| self.at = end)
    }

    /// Calls `each` with the number and the type of each member of a struct.
    fn members(
        &mut self,
        depth: usize,
        each: &mut dyn FnMut(&mut Self, i64, u8) -> Option<()>,
    ) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        let mut id = 0i64;
        loop {
            let head = self.byte()?;
            if head & 0x0f == 0 {
                return Some(());
            }
            id = match i64::from(head >> 4) {
                0 => self.zigzag()?,
                more => id.checked_add(more)?,
            };
            each(self, id, head & 0x0f)?;
        }
    }

    /// Passes over a value that is a member of a struct.
    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        match kind {
            TRUE | FALSE => Some(()),
            3 => self.pass(1),
            4..=6 => self.varint().map(drop),
            7 => self.pass(8),
            8 => {
                let length = self.varint()?;
                self.pass(length)
            }
            LIST | 10 => {
                let (count, kind) = self.list()?;
                self.take_elements(count)?;
                (0..count).try_for_each(|_| self.element(kind, depth))
            }
            11 => {
                let count = self.varint()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                self.take_elements(count)?;
                for _ in 0..count {
                    self.element(kinds >> 4, depth)?;
                    self.element(kinds & 0x0f, depth)?;
                }
                Some(())
            }
            STRUCT => self.members(depth, &mut |input, _, kind| input.skip(kind, depth + 1)),
            13 => self.pass(16),
            _ => None,
        }
    }

    /// The number and the type of the elements of a list.
    fn list(&mut self) -> Option<(u64, u8)> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.varint()?,
            few => u64::from(few),
        };
        Some((count, head & 0x0f))
    }

    /// Counts elements, each of which has at least one byte.
    fn take_elements(&mut self, count: u64) -> Option<()> {
        let count = usize::try_from(count).ok()?;
        self.elements = self.elements.checked_add(count)?;
        (count <= self.bytes.len().saturating_sub(self.at) && self.elements <= ELEMENTS_MAX).then_some(())
    }

    /// Passes over an element of a list, where a truth value has a byte of its own.
    fn element(&mut self, kind: u8, depth: usize) -> Option<()> {
        match kind {
            // Some writers give an empty list no type.
            0 => None,
            TRUE | FALSE => self.pass(1),
            _ => self.skip(kind, depth + 1),
        }
    }
}

/// Reads an unsigned number of at most 64 bits.
pub(super) fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_and_passed_over() {
        // Type 0, sizes 300 and 200, {5 values, encoding 8, levels 3 and 3, statistics {…}}.
        let header = [
            0x15, 0x00, 0x15, 0xd8, 0x04, 0x15, 0x90, 0x03, 0x2c, 0x15, 0x0a, 0x15, 0x10, 0x15, 0x06, 0x15,
            0x06, 0x1c, 0x18, 0x01, b'a', 0x00, 0x00, 0x00,
        ];
        let (read, length) = page_header(&[&header[..], b"page"].concat()).expect("a header");
        assert_eq!(length, header.len());
        assert_eq!((read.kind, read.size, read.stored, read.values), (Kind::Data, 300, 200, 5));
        assert_eq!((read.encoding, read.definition_encoding, read.repetition_encoding), (8, 3, 3));
        for end in 0..header.len() {
            assert!(page_header(&header[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn lengths_are_not_believed() {
        // A list of two billion structs, a text of as many bytes, and a deep nest.
        let list = [0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0x00];
        let text = [0x18, 0xff, 0xff, 0xff, 0xff, 0x07, 0x00];
        let nest = [0x1c; 100];
        for bytes in [&list[..], &text[..], &nest[..]] {
            assert!(check_footer(bytes).is_err());
        }
        assert!(check_footer(&[0x15, 0x02, 0x19, 0x00, 0x00]).is_ok(), "an empty list");
        assert!(is_flat(&[2, 1, 0, 0]));
        assert!(!is_flat(&[1; 100]), "a deep schema");
        assert!(check_footer(&[0x19, 0x21, 1, 2, 0x00]).is_ok(), "a list of truth values");
    }
}

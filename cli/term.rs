//! Writes words, numbers and colours in the same form in every command.
//!
//! Invariant: text that is written through [`stdout`], [`stderr`], [`data`] or [`log`] can make a
//! terminal only colour text, end lines and show characters in their order.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};

use strongroom_schemas::is_active;

/// `1234567` as `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 rule`, `1,234 rules`.
pub fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number as u64))
}

/// Returns the bytes in binary units with one decimal: `1.5 MiB`.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{number} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `"128MiB"` as bytes, for clap.
pub fn byte_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let unit = match text[digits.len()..].trim().to_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        other => return Err(format!("\"{other}\" is not a unit; use KiB, MiB, GiB or TiB")),
    };
    let number: u64 = digits.trim().parse().map_err(|_| "not a number of bytes, e.g. 512MiB".to_owned())?;
    number.checked_mul(1 << unit).ok_or_else(|| "too many bytes".to_owned())
}

/// Returns text from outside in which each character that a terminal obeys, or that changes the
/// order of other characters, is replaced with a visible escape. So a name in a log cannot move the
/// cursor, change the title of the terminal, or be mistaken for another name.
pub fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| if is_active(c) { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

/// Like [`printable`], for a message of several lines. The program indents every line after the
/// first. So a line feed before a line that is not indented came from outside, for example in the
/// name of a file, and is replaced too.
pub fn printable_lines(text: &str) -> String {
    text.split("\n  ").map(printable).collect::<Vec<_>>().join("\n  ")
}

/// Standard output. If it is a terminal, nothing in a text makes it do more than colour text.
pub fn stdout() -> Clean<anstream::AutoStream<io::Stdout>> {
    Clean::of(anstream::stdout(), io::stdout().is_terminal(), true)
}

/// Like [`stdout`], for standard error.
pub fn stderr() -> Clean<anstream::AutoStream<io::Stderr>> {
    Clean::of(anstream::stderr(), io::stderr().is_terminal(), true)
}

/// Standard output for data. The bytes are changed only if standard output is a terminal.
pub fn data() -> Clean<io::Stdout> {
    Clean::of(io::stdout(), io::stdout().is_terminal(), false)
}

/// Standard error for the log, which colours its own words.
pub fn log() -> Clean<io::Stderr> {
    Clean::of(io::stderr(), io::stderr().is_terminal(), true)
}

/// A writer to a place that may be a terminal. If the place is a terminal, every character that a
/// terminal obeys is written as JSON would write it (`\u001b`), except line feeds, tabs and, if
/// they are kept, colours. Bytes that are not UTF-8 become U+FFFD.
#[derive(Debug)]
pub struct Clean<W> {
    out: W,
    is_terminal: bool,
    keeps_colours: bool,
    /// The beginning of a character, or of a colour, whose rest comes with the next write.
    held: Vec<u8>,
}

impl<W: io::Write> Clean<W> {
    pub fn of(out: W, is_terminal: bool, keeps_colours: bool) -> Self {
        Clean { out, is_terminal, keeps_colours, held: Vec::new() }
    }

    /// For callers that lock a stream; a command writes from one thread at a time.
    pub fn lock(self) -> Self {
        self
    }

    /// Writes the complete characters and colours in `held`, or everything if `is_end`.
    fn pass(&mut self, is_end: bool) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.held);
        let mut text = String::with_capacity(bytes.len() + 8);
        let mut rest: &[u8] = &bytes;
        while !rest.is_empty() {
            if self.keeps_colours && rest[0] == ESCAPE {
                match colour(rest) {
                    Colour::Whole(length) => {
                        text.extend(rest[..length].iter().map(|byte| char::from(*byte)));
                        rest = &rest[length..];
                        continue;
                    }
                    Colour::Part if !is_end => break,
                    Colour::Part | Colour::None => {}
                }
            }
            // The text ends before the next escape, so that every escape is examined.
            let until = 1 + rest[1..].iter().position(|byte| *byte == ESCAPE).unwrap_or(rest.len() - 1);
            let (taken, length) = match std::str::from_utf8(&rest[..until]) {
                Ok(taken) => (taken, until),
                Err(error) => {
                    let valid = error.valid_up_to();
                    match error.error_len() {
                        // The character continues in the next write.
                        None if until == rest.len() && !is_end => {
                            (std::str::from_utf8(&rest[..valid]).unwrap_or_default(), valid)
                        }
                        bad => {
                            visible(std::str::from_utf8(&rest[..valid]).unwrap_or_default(), &mut text);
                            text.push(char::REPLACEMENT_CHARACTER);
                            ("", valid + bad.unwrap_or(until - valid))
                        }
                    }
                }
            };
            visible(taken, &mut text);
            rest = &rest[length..];
            if length == 0 {
                break;
            }
        }
        self.held = rest.to_vec();
        self.out.write_all(text.as_bytes())
    }
}

impl<W: io::Write> io::Write for Clean<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_terminal {
            return self.out.write(bytes);
        }
        self.held.extend_from_slice(bytes);
        self.pass(false)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W> Drop for Clean<W> {
    fn drop(&mut self) {
        // An unfinished character is not worth an error.
        self.held.clear();
    }
}

const ESCAPE: u8 = 0x1b;
/// Longest sequence that sets a colour.
const COLOUR_BYTES_MAX: usize = 32;

enum Colour {
    /// The length of the sequence.
    Whole(usize),
    /// The text ends before it is clear whether the sequence sets a colour.
    Part,
    None,
}

/// Says whether a text that begins with an escape begins with a sequence that sets a colour. Such a
/// sequence is `ESC [`, then digits, semicolons and colons, then `m`.
fn colour(text: &[u8]) -> Colour {
    for (at, byte) in text.iter().enumerate().take(COLOUR_BYTES_MAX) {
        match (at, byte) {
            (0, _) | (1, b'[') => {}
            (2.., b'0'..=b'9' | b';' | b':') => {}
            (2.., b'm') => return Colour::Whole(at + 1),
            _ => return Colour::None,
        }
    }
    if text.len() < COLOUR_BYTES_MAX { Colour::Part } else { Colour::None }
}

fn visible(text: &str, out: &mut String) {
    for c in text.chars() {
        if is_active(c) && c != '\n' && c != '\t' {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
}

/// Returns a word that a POSIX shell reads back as `text`.
pub fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_read_well() {
        assert_eq!(super::count(0), "0");
        assert_eq!(super::count(999), "999");
        assert_eq!(super::count(1_234_567), "1,234,567");
        assert_eq!(
            (super::counted(1, "rule"), super::counted(1000, "rule")),
            ("1 rule".into(), "1,000 rules".into())
        );
        assert_eq!(super::bytes(1023), "1023 B");
        assert_eq!(super::bytes(1536), "1.5 KiB");
    }

    #[test]
    fn text_from_outside_is_harmless() {
        assert_eq!(super::printable("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(super::shell_word("a b'c"), "'a b'\\''c'");
        assert_eq!(super::shell_word("./archive"), "./archive");
    }

    #[test]
    fn sizes_take_units() {
        assert_eq!(super::byte_size("128MiB"), Ok(128 << 20));
        assert_eq!(super::byte_size("7"), Ok(7));
        assert!(super::byte_size("7 parsecs").is_err() && super::byte_size("99999999TiB").is_err());
    }

    #[test]
    fn a_terminal_shows_what_it_would_obey_however_the_text_is_cut() {
        use std::io::Write as _;
        let text =
            "a\u{1b}[31mred\u{1b}[0m \u{1b}]0;title\u{7}\r\u{9b}2J\u{202e}b\tc\n漢\u{1b}[2J".as_bytes();
        let text = [text, b"\x9b1m\xff", "\u{e0041}ä\n".as_bytes()].concat();
        let shown = |keeps_colours: bool, cut: usize| {
            let mut out = Vec::new();
            let mut clean = super::Clean::of(&mut out, true, keeps_colours);
            for piece in text.chunks(cut) {
                clean.write_all(piece).expect("in memory");
            }
            drop(clean);
            String::from_utf8(out).expect("UTF-8")
        };
        let colours = "a\u{1b}[31mred\u{1b}[0m \\u001b]0;title\\u0007\\u000d\\u009b2J\\u202eb\tc\n漢\\u001b[2J\u{fffd}1m\u{fffd}\\udb40\\udc41ä\n";
        let plain = colours.replace('\u{1b}', "\\u001b");
        for cut in 1..=text.len() {
            assert_eq!(shown(true, cut), colours, "{cut}");
            assert_eq!(shown(false, cut), plain, "{cut}");
        }
        let mut out = Vec::new();
        super::Clean::of(&mut out, false, false).write_all(&text).expect("in memory");
        assert_eq!(out, text, "a file or a pipe gets every byte");
    }
}

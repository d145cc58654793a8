//! Words, numbers and colours on the terminal, the same in every command.

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

/// Bytes in binary units with one decimal: `1.5 MiB`.
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

/// Text from outside with its control characters made visible: a name in a log must not move the
/// cursor or change the title of the terminal that shows it.
pub fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

/// A word that a POSIX shell reads back as `text`.
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
}

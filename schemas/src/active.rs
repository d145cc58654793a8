//! Recognises characters that may deceive a terminal, or the person who reads it.
//!
//! No state, no IO.

/// Whether `c` is a control character, or changes the order of other characters or hides them.
pub fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_active_and_text_is_not() {
        for c in [
            '\0', '\u{7}', '\u{1b}', '\r', '\n', '\u{7f}', '\u{80}', '\u{9b}', '\u{9d}', '\u{202e}',
            '\u{2066}',
        ] {
            assert!(is_active(c), "{c:?}");
        }
        for c in ['a', ' ', '~', '\u{a0}', 'ä', 'ß', '漢', '\u{301}', '\u{1f600}', '\u{fffd}'] {
            assert!(!is_active(c), "{c:?}");
        }
    }
}

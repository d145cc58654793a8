//! Query parameters of a request URI as the API server reads them.
//!
//! Invariant: a pair that Go's `url.ParseQuery` drops is not a parameter here either, so a client
//! cannot show one value to readers of the log and another to the API server. No state.

/// Returns the values of a query parameter of a URI, decoded and joined by spaces; `None` if the
/// URI does not have the parameter. A pair with a semicolon or a broken escape is ignored, because
/// Go drops it.
pub fn query_parameter(uri: &str, name: &str) -> Option<String> {
    let (_, query) = uri.split_once('?')?;
    let mut joined: Option<String> = None;
    for pair in query.split('&').filter(|pair| is_read_pair(pair)) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if key == name || (key.contains('%') && percent_decoded(key) == name) {
            let joined = match &mut joined {
                Some(text) => {
                    text.push(' ');
                    text
                }
                None => joined.insert(String::new()),
            };
            joined.push_str(&percent_decoded(value));
        }
    }
    joined
}

/// Returns true if Go's `url.ParseQuery` reads a pair.
pub fn is_read_pair(pair: &str) -> bool {
    let is_escape = |after: &str| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    !pair.contains(';') && pair.split('%').skip(1).all(is_escape)
}

/// Decodes form encoding (`%41` and `+`). Bytes that are not UTF-8 become U+FFFD.
fn percent_decoded(text: &str) -> String {
    let digit = |byte: Option<&u8>| byte.and_then(|b| char::from(*b).to_digit(16));
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match (byte, digit(bytes.get(at)), digit(bytes.get(at + 1))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) => decoded.push(b' '),
            _ => decoded.push(byte),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_parameters_are_decoded() {
        let uri = "/x/exec?command=sh&command=-c&command=cat+%2Fetc%2Fshadow&container=web&stdin=true";
        assert_eq!(query_parameter(uri, "command").as_deref(), Some("sh -c cat /etc/shadow"));
        assert_eq!(query_parameter(uri, "container").as_deref(), Some("web"));
        assert_eq!(query_parameter(uri, "tty"), None);
        for dropped in
            ["command=%", "command=true;", "command=%ZZ", "command=%4", "%zzcommand=a", "command=a;b=c"]
        {
            assert_eq!(query_parameter(&format!("/x?{dropped}"), "command"), None, "{dropped}");
            let both = format!("/x?{dropped}&command=sh&{dropped}");
            assert_eq!(query_parameter(&both, "command").as_deref(), Some("sh"), "{dropped}");
        }
        assert_eq!(query_parameter("/x?%63ommand=a%C3%A9%ff", "command").as_deref(), Some("aé\u{FFFD}"));
        assert_eq!(query_parameter("/x?command", "command").as_deref(), Some(""));
    }
}

//! `strongroom reveal`: says whether a token stands for a given value.
//!
//! Invariant: the value is read from standard input, and is in no argument, output or record.

use std::io::{IsTerminal as _, Read as _, Write as _};

use anyhow::Context as _;
use strongroom_ingest::disclose::Disclosure;
use strongroom_redact::{Token, TokenError};

use crate::exit::{self, CliError};
use crate::redact::DisclosureArgs;
use crate::term;

/// Longest value that is read.
const VALUE_BYTES_MAX: u64 = 64 << 20;

/// Say whether a value is the one that a token stands for.
///
/// No table of values is kept: you need the value, which is read from standard input, and the key.
/// Before the answer is given, the use is recorded in the archive, or in the archive of --record,
/// for example because another process writes to the first. Tokens of different keys cannot be
/// compared; name old keys in `old_keys` of the policy, or with --redact-key.
#[derive(clap::Args)]
#[command(after_long_help = "\
Example:
  printf 123-45-6789 | strongroom reveal --token rt1:0123abcd:00112233445566778899aabbccddeeff \\
      --redact policy.toml --archive ./archive --principal eve@example.com --reason \"case 4711\"

Exit codes: 0 it is the value; 1 it is not, or the key of the token was not given; 2 there is no
answer, because the use could not be recorded.")]
pub struct Args {
    /// The token
    #[arg(long, value_name = "TOKEN", value_parser = token)]
    token: Token,
    /// The value is JSON (a number, true, an object); without this it is the text of a string
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    disclosure: DisclosureArgs,
}

fn token(text: &str) -> Result<Token, String> {
    Token::parse(text).map_err(|error| error.to_string())
}

pub fn run(args: Args) -> Result<u8, CliError> {
    let keys = args.disclosure.keys()?;
    let Some(key) = keys.find(args.token.key_id()) else {
        let error = anyhow::Error::new(TokenError::UnknownKey(args.token.key_id()));
        let given: Vec<String> = keys.ids().map(|id| id.to_string()).collect();
        return Err(CliError::input(error).with_hint(format!(
            "the keys given are {}; tokens of different keys cannot be compared, so name the key that was in use then",
            given.join(", ")
        )));
    };
    let text = read_value()?;
    let token = match args.json {
        true => key.token_of_json(&text).map_err(CliError::input)?,
        false => key.token_of_str(without_newline(&text)),
    };
    let is_the_value = token == args.token;
    let archive = args.disclosure.archive()?;
    args.disclosure.record(&archive, Disclosure::Reveal { token: args.token.as_str(), is_the_value })?;
    let answer =
        if is_the_value { "this is the value of the token" } else { "this is not the value of the token" };
    writeln!(term::stdout(), "{answer}").context("cannot write to standard output")?;
    Ok(if is_the_value { exit::OK } else { exit::FINDING })
}

/// A line that was typed ends with a newline, which is not a part of the value.
fn without_newline(text: &str) -> &str {
    text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line))
}

fn read_value() -> Result<String, CliError> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        let _ = writeln!(term::stderr(), "the value, then Ctrl-D:");
    }
    let mut bytes = Vec::new();
    let read = stdin.lock().take(VALUE_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.context("cannot read the value from standard input")?;
    if bytes.len() as u64 > VALUE_BYTES_MAX {
        return Err(CliError::input(anyhow::anyhow!("the value is too long")));
    }
    String::from_utf8(bytes).map_err(|_| CliError::input(anyhow::anyhow!("the value is not UTF-8")))
}

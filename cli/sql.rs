//! `strongroom sql`: statements one after another, at a prompt or from a script.
//!
//! Invariant: at a prompt an error or Ctrl-C ends one statement, never the session; in a script the
//! first error ends the script, so that no later output is mistaken for the answer of the failed
//! statement.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Editor, Helper};
use strongroom_query::{Catalog, Expanded, Format, Layout, Session, split_statements, statement_is_complete};
use tokio::runtime::Runtime;

use crate::exit::{self, CliError, query_error};
use crate::query::{self, SessionArgs};
use crate::term;

/// Ask the archive interactively.
///
/// Statements end with `;` and may span lines; Tab completes; `\?` lists commands. Reads a script
/// from standard input when that is not a terminal.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    session: SessionArgs,
}

const HELP: &str = "\
\\d            list tables and views        \\d NAME       columns of a table or view
\\dv           list views                   \\x            one line per column: auto, on, off
\\timing       timing on or off             \\f FORMAT     table, csv, json, json-array
\\o FILE       answers to FILE              \\o            answers to the terminal
\\i FILE       run the statements in FILE   \\q            quit (also Ctrl-D)
Statements end with ; and may span lines. Ctrl-C stops a running query.
";

const PROMPT: &str = "strongroom> ";
const HISTORY_ENTRIES_MAX: usize = 10_000;
/// How deep files may include each other with `\i`.
const INCLUDE_DEPTH_MAX: usize = 8;

pub fn run(args: Args) -> Result<u8, CliError> {
    let runtime = query::runtime(&args.session)?;
    let session = query::open(&args.session)?;
    let is_interactive = io::stdin().is_terminal() && io::stdout().is_terminal();
    let mut shell = Shell {
        runtime: &runtime,
        session: &session,
        is_interactive,
        expanded: if is_interactive { Expanded::WhenWide } else { Expanded::Never },
        timing: is_interactive,
        format: Format::Table,
        output: None,
        include_depth: 0,
    };
    if is_interactive { shell.run_prompt() } else { shell.run_script(io::stdin().lock()) }
}

struct Shell<'a> {
    runtime: &'a Runtime,
    session: &'a Session,
    is_interactive: bool,
    expanded: Expanded,
    timing: bool,
    format: Format,
    output: Option<File>,
    include_depth: usize,
}

/// What the session does after an input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Continue,
    Quit,
    Interrupted,
}

impl Shell<'_> {
    fn run_prompt(&mut self) -> Result<u8, CliError> {
        let catalog = self.catalog()?;
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .max_history_size(HISTORY_ENTRIES_MAX)
            .and_then(|config| config.history_ignore_dups(true))
            .context("cannot set up the prompt")?
            .history_ignore_space(true)
            .auto_add_history(true)
            .build();
        let mut editor: Editor<Prompt, FileHistory> =
            Editor::with_config(config).context("cannot open the terminal")?;
        editor.set_helper(Some(Prompt { catalog }));
        let history = history_file();
        if let Some(path) = &history {
            // A missing or unreadable history counts as empty.
            let _ = editor.load_history(path);
        }
        self.say("Type \\? for commands, \\d for tables. Statements end with ;")?;
        loop {
            match editor.readline(PROMPT) {
                Ok(input) => {
                    if let Some(path) = &history {
                        let _ = editor.append_history(path);
                    }
                    match self.run_input(&input) {
                        Ok(Next::Quit) => return Ok(exit::OK),
                        Ok(Next::Continue | Next::Interrupted) => {}
                        Err(error) => exit::report(&error),
                    }
                }
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(exit::OK),
                Err(error) => return Err(CliError::failure(error)),
            }
        }
    }

    fn run_script(&mut self, input: impl io::BufRead) -> Result<u8, CliError> {
        Ok(match self.run_lines(input)? {
            Next::Continue | Next::Quit => exit::OK,
            Next::Interrupted => exit::INTERRUPTED,
        })
    }

    fn run_lines(&mut self, input: impl io::BufRead) -> Result<Next, CliError> {
        let mut pending = String::new();
        for line in input.lines() {
            let line = line.context("cannot read the script")?;
            if pending.trim().is_empty() && line.trim_start().starts_with('\\') {
                match self.command(line.trim())? {
                    Next::Continue => continue,
                    next => return Ok(next),
                }
            }
            pending.push_str(&line);
            pending.push('\n');
            if statement_is_complete(&pending) {
                match self.statements(&pending)? {
                    Next::Continue => pending.clear(),
                    next => return Ok(next),
                }
            }
        }
        self.statements(&pending)
    }

    fn run_input(&mut self, input: &str) -> Result<Next, CliError> {
        match input.trim() {
            "" => Ok(Next::Continue),
            "quit" | "exit" | "quit;" | "exit;" => Ok(Next::Quit),
            command if command.starts_with('\\') => self.command(command),
            _ => self.statements(input),
        }
    }

    fn statements(&mut self, text: &str) -> Result<Next, CliError> {
        for sql in split_statements(text).map_err(query_error)? {
            let layout = Layout {
                width: if self.output.is_none() { query::terminal_width() } else { None },
                truncate: self.is_interactive,
                expanded: self.expanded,
            };
            let (runtime, session, format) = (self.runtime, self.session, self.format);
            let written = match &mut self.output {
                Some(file) => query::answer(runtime, session, sql, format, &layout, file)?,
                None => query::answer(runtime, session, sql, format, &layout, term::data())?,
            };
            written.iter().for_each(query::tell_policies);
            match written {
                Some(written) if self.timing => self.say(&query::summary(&written))?,
                Some(_) => {}
                None => {
                    self.say("interrupted")?;
                    return Ok(Next::Interrupted);
                }
            }
        }
        Ok(Next::Continue)
    }

    fn command(&mut self, command: &str) -> Result<Next, CliError> {
        let (name, argument) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let argument = argument.trim().trim_end_matches(';').trim_end();
        match (name.trim_end_matches(';'), argument) {
            ("\\q", _) => return Ok(Next::Quit),
            ("\\?" | "\\h" | "\\help", _) => self.print(HELP)?,
            ("\\d" | "\\dt", "") => self.list(|_| true)?,
            ("\\dv", "") => self.list(|relation| relation.is_view)?,
            ("\\d" | "\\dv" | "\\dt", name) => {
                return self.statements(&format!("DESCRIBE \"{}\"", name.replace('"', "\"\"")));
            }
            ("\\x", wanted) => {
                self.expanded = match (wanted, self.expanded) {
                    ("on", _) | ("", Expanded::WhenWide) => Expanded::Always,
                    ("off", _) | ("", Expanded::Always) => Expanded::Never,
                    _ => Expanded::WhenWide,
                };
                self.say(match self.expanded {
                    Expanded::Always => "one line per column: on",
                    Expanded::Never => "one line per column: off",
                    Expanded::WhenWide => "one line per column: when a row does not fit",
                })?;
            }
            ("\\timing", wanted) => {
                self.timing = match wanted {
                    "on" => true,
                    "off" => false,
                    _ => !self.timing,
                };
                self.say(if self.timing { "timing is on" } else { "timing is off" })?;
            }
            ("\\f", name) => {
                self.format = match name {
                    "table" => Format::Table,
                    "csv" => Format::Csv,
                    "json" => Format::Json,
                    "json-array" => Format::JsonArray,
                    _ => return Err(wrong_command("formats here are table, csv, json and json-array")),
                };
            }
            ("\\o", "") => self.output = None,
            ("\\o", path) => {
                let file = File::create(path).with_context(|| format!("cannot create {path}"));
                self.output = Some(file.map_err(CliError::input)?);
            }
            ("\\i", "") => return Err(wrong_command("\\i takes the name of a file")),
            ("\\i", path) => return self.include(Path::new(path)),
            _ => return Err(wrong_command("\\? lists the commands")),
        }
        Ok(Next::Continue)
    }

    fn include(&mut self, path: &Path) -> Result<Next, CliError> {
        if self.include_depth == INCLUDE_DEPTH_MAX {
            return Err(wrong_command("files include each other too deeply"));
        }
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()));
        let file = io::BufReader::new(file.map_err(CliError::input)?);
        self.include_depth += 1;
        let next = self.run_lines(file);
        self.include_depth -= 1;
        next
    }

    fn catalog(&self) -> Result<Catalog, CliError> {
        self.runtime.block_on(self.session.catalog()).map_err(query_error)
    }

    fn list(&mut self, wanted: impl Fn(&strongroom_query::Relation) -> bool) -> Result<(), CliError> {
        let mut text = String::new();
        for relation in self.catalog()?.relations.iter().filter(|relation| wanted(relation)) {
            let kind = if relation.is_view { "view" } else { "table" };
            text += &format!("{:<14} {kind:<6} {}\n", relation.name, relation.about);
        }
        self.print(&text)
    }

    /// Prints the text of an answer.
    fn print(&mut self, text: &str) -> Result<(), CliError> {
        match &mut self.output {
            Some(file) => file.write_all(text.as_bytes()).context("cannot write the output file")?,
            None => term::stdout().write_all(text.as_bytes()).context("cannot write")?,
        }
        Ok(())
    }

    /// Prints a remark on standard error, apart from the answers.
    fn say(&self, text: &str) -> Result<(), CliError> {
        Ok(writeln!(term::stderr(), "{text}").context("cannot write")?)
    }
}

fn wrong_command(hint: &str) -> CliError {
    CliError::input(anyhow::anyhow!("this command is unknown or incomplete")).with_hint(hint)
}

/// Returns the file that keeps inputs between sessions. Only its owner can read it, because
/// statements name people.
fn history_file() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    let folder = state.join("strongroom");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).ok()?;
    let path = folder.join("history");
    OpenOptions::new().append(true).create(true).mode(0o600).open(&path).ok()?;
    Some(path)
}

/// Completion, and the rule that an input ends with `;`.
struct Prompt {
    catalog: Catalog,
}

impl Helper for Prompt {}
impl Highlighter for Prompt {}

impl Hinter for Prompt {
    type Hint = String;
}

impl Completer for Prompt {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        cursor: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(strongroom_query::complete(line, cursor, &self.catalog))
    }
}

impl Validator for Prompt {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let input = context.input().trim();
        let is_whole = input.is_empty()
            || input.starts_with('\\')
            || matches!(input, "quit" | "exit")
            || statement_is_complete(input);
        Ok(if is_whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

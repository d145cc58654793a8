//! The table format: aligned columns, or, for rows that are too wide, one line for each value.
//!
//! Invariant: a value reaches a terminal only as printable text; cells are cleaned here. The widths
//! of columns are those of the first rows. A later value that is longer is cut if cutting is
//! allowed, and otherwise makes its line longer.

use std::fmt::Write as _;
use std::io::{self, Write};

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{DataType, Schema};
use strongroom_schemas::is_active;

use super::{Expanded, Layout, next_batch};
use crate::error::{QueryError, Result};
use crate::session::Answer;

/// Number of rows that are read before the widths are fixed.
const SAMPLE_ROWS: usize = 1_000;
/// A column is never cut to less than this width.
const COLUMN_WIDTH_MIN: usize = 8;
/// Maximum number of lines of the terminal that a value fills in an expanded row.
const EXPANDED_LINES_MAX: usize = 6;
const SEPARATOR: &str = " │ ";
const CUT: char = '…';

pub(super) async fn write(answer: &mut Answer, layout: &Layout, out: &mut impl Write) -> Result<u64> {
    let schema = std::sync::Arc::clone(&answer.schema);
    let mut sample: Vec<Vec<Cell>> = vec![];
    while sample.len() < SAMPLE_ROWS
        && let Some(batch) = next_batch(answer).await?
    {
        sample.extend(cells(&batch)?);
    }
    if is_plan(&schema) {
        return write_plan(answer, sample, out).await;
    }
    let mut grid = Grid::new(&schema, &sample, layout);
    let mut rows = sample.len() as u64;
    grid.write_head(out).map_err(QueryError::Write)?;
    for row in sample {
        grid.write_row(row, out).map_err(QueryError::Write)?;
    }
    while let Some(batch) = next_batch(answer).await? {
        rows += batch.num_rows() as u64;
        for row in cells(&batch)? {
            grid.write_row(row, out).map_err(QueryError::Write)?;
        }
        // Rows of a slow query are shown when they arrive.
        out.flush().map_err(QueryError::Write)?;
    }
    Ok(rows)
}

/// Returns the text that is shown for a value; `None` for null.
type Cell = Option<String>;

const NULL: &str = "NULL";

fn cells(batch: &RecordBatch) -> Result<Vec<Vec<Cell>>> {
    let encode = |source| QueryError::Encode { format: "table", source };
    let options = FormatOptions::default().with_display_error(true);
    let mut rows = vec![Vec::with_capacity(batch.num_columns()); batch.num_rows()];
    for column in batch.columns() {
        let formatter = ArrayFormatter::try_new(column.as_ref(), &options).map_err(encode)?;
        let mut text = String::new();
        for (at, row) in rows.iter_mut().enumerate() {
            if column.is_null(at) {
                row.push(None);
                continue;
            }
            text.clear();
            match column.data_type() {
                // Bytes are nearly always the text of a line.
                DataType::BinaryView => {
                    text.push_str(&String::from_utf8_lossy(column.as_binary_view().value(at)));
                }
                DataType::Binary => {
                    text.push_str(&String::from_utf8_lossy(column.as_binary::<i32>().value(at)));
                }
                _ => {
                    // Writing to a string cannot fail, and errors of a value are written as text.
                    let _ = write!(text, "{}", formatter.value(at));
                }
            }
            row.push(Some(text.clone()));
        }
    }
    Ok(rows)
}

struct Grid {
    names: Vec<String>,
    widths: Vec<usize>,
    is_number: Vec<bool>,
    expanded: bool,
    /// Maximum width of a value in an expanded row; `None` if values are not cut.
    value_width: Option<usize>,
    cut: bool,
    row: u64,
}

impl Grid {
    fn new(schema: &Schema, sample: &[Vec<Cell>], layout: &Layout) -> Grid {
        let names: Vec<String> = schema.fields().iter().map(|field| clean(field.name())).collect();
        let natural: Vec<usize> = names
            .iter()
            .enumerate()
            .map(|(column, name)| {
                let cells = sample.iter().map(|row| row[column].as_deref().unwrap_or(NULL));
                cells.map(|cell| width(&clean(cell))).chain([width(name)]).max().unwrap_or(0)
            })
            .collect();
        let cut = layout.truncate && layout.width.is_some();
        let fitted = layout.width.and_then(|columns| fit(&natural, columns));
        let expanded = match layout.expanded {
            Expanded::Always => true,
            Expanded::Never => false,
            Expanded::WhenWide => cut && fitted.is_none() && !sample.is_empty(),
        };
        let widths = match (cut, expanded) {
            (true, false) => fitted
                .unwrap_or_else(|| natural.iter().map(|natural| (*natural).min(COLUMN_WIDTH_MIN)).collect()),
            _ => natural,
        };
        let name_width = names.iter().map(|name| width(name)).max().unwrap_or(0);
        let value_width = layout.width.filter(|_| cut).map(|columns| {
            columns.saturating_sub(name_width + width(SEPARATOR)).max(COLUMN_WIDTH_MIN) * EXPANDED_LINES_MAX
        });
        let is_number = schema.fields().iter().map(|field| field.data_type().is_numeric()).collect();
        Grid { names, widths, is_number, expanded, value_width, cut, row: 0 }
    }

    fn write_head(&self, out: &mut impl Write) -> io::Result<()> {
        if self.expanded || self.names.is_empty() {
            return Ok(());
        }
        let names = self.names.iter().map(|name| Some(name.clone())).collect();
        self.write_line(names, out)?;
        let rules = self.widths.iter().map(|width| "─".repeat(*width));
        writeln!(out, "{}", rules.collect::<Vec<_>>().join("─┼─"))
    }

    fn write_row(&mut self, row: Vec<Cell>, out: &mut impl Write) -> io::Result<()> {
        self.row += 1;
        if !self.expanded {
            return self.write_line(row, out);
        }
        writeln!(out, "─[ row {} ]─", self.row)?;
        let name_width = self.names.iter().map(|name| width(name)).max().unwrap_or(0);
        for (name, cell) in self.names.iter().zip(row) {
            let text = clean(cell.as_deref().unwrap_or(NULL));
            let text = match self.value_width {
                Some(columns) => shorten(text, columns),
                None => text,
            };
            writeln!(out, "{name}{}{SEPARATOR}{text}", " ".repeat(name_width - width(name)))?;
        }
        Ok(())
    }

    fn write_line(&self, row: Vec<Cell>, out: &mut impl Write) -> io::Result<()> {
        let mut line = String::new();
        for (column, cell) in row.into_iter().enumerate() {
            let columns = self.widths[column];
            let mut text = clean(cell.as_deref().unwrap_or(NULL));
            if self.cut {
                text = shorten(text, columns);
            }
            let padding = columns.saturating_sub(width(&text));
            if column > 0 {
                line.push_str(SEPARATOR);
            }
            if self.is_number[column] {
                line.extend(std::iter::repeat_n(' ', padding));
                line.push_str(&text);
            } else {
                line.push_str(&text);
                line.extend(std::iter::repeat_n(' ', padding));
            }
        }
        writeln!(out, "{}", line.trim_end())
    }
}

/// Returns widths that together fit a terminal of `columns`; the widest shrink first. `None` when
/// even the minimum widths do not fit.
fn fit(natural: &[usize], columns: usize) -> Option<Vec<usize>> {
    let separators = natural.len().saturating_sub(1) * width(SEPARATOR);
    let room = columns.checked_sub(separators)?;
    let total = |cap: usize| natural.iter().map(|natural| (*natural).min(cap)).sum::<usize>();
    if total(COLUMN_WIDTH_MIN) > room {
        return None;
    }
    let widest = natural.iter().copied().max().unwrap_or(0).max(COLUMN_WIDTH_MIN);
    // `total` grows with the cap, so a binary search finds the largest cap that fits.
    let (mut fits, mut too_wide) = (COLUMN_WIDTH_MIN, widest + 1);
    while too_wide - fits > 1 {
        let cap = fits.midpoint(too_wide);
        if total(cap) <= room { fits = cap } else { too_wide = cap }
    }
    let mut widths: Vec<usize> = natural.iter().map(|natural| (*natural).min(fits)).collect();
    let mut spare = room - total(fits);
    for (width, natural) in widths.iter_mut().zip(natural) {
        if spare > 0 && *width < *natural {
            *width += 1;
            spare -= 1;
        }
    }
    Some(widths)
}

/// Returns `text`, cut to a width of `columns` if it is longer. `…` marks the cut.
fn shorten(text: String, columns: usize) -> String {
    if width(&text) <= columns {
        return text;
    }
    let mut shown = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += char_width(c);
        if used > columns {
            break;
        }
        shown.push(c);
    }
    shown.push(CUT);
    shown
}

/// Returns `text` with an escape in place of everything that a terminal would interpret.
fn clean(text: &str) -> String {
    if text.chars().all(|c| !is_active(c)) {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c if is_active(c) => {
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
            }
            c => shown.push(c),
        }
    }
    shown
}

fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// Cells that a terminal uses for `c`: none for combining marks, two for East Asian characters and
/// pictographs.
fn char_width(c: char) -> usize {
    match c {
        '\u{300}'..='\u{36f}'
        | '\u{1ab0}'..='\u{1aff}'
        | '\u{20d0}'..='\u{20ff}'
        | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

fn is_plan(schema: &Schema) -> bool {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    names == ["plan_type", "plan"]
}

/// Writes the answer to EXPLAIN, with the line breaks of each plan.
async fn write_plan(answer: &mut Answer, mut rows: Vec<Vec<Cell>>, out: &mut impl Write) -> Result<u64> {
    while let Some(batch) = next_batch(answer).await? {
        rows.extend(cells(&batch)?);
    }
    let count = rows.len() as u64;
    for row in rows {
        let mut texts = row.into_iter().map(Option::unwrap_or_default);
        let (kind, plan) = (texts.next().unwrap_or_default(), texts.next().unwrap_or_default());
        writeln!(out, "{}:", clean(&kind)).map_err(QueryError::Write)?;
        for line in plan.lines() {
            writeln!(out, "  {}", clean(line)).map_err(QueryError::Write)?;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_columns_shrink_first() {
        assert_eq!(fit(&[10, 20, 5], 80), Some(vec![10, 20, 5]));
        assert_eq!(fit(&[10, 100, 5], 60), Some(vec![10, 39, 5]));
        assert_eq!(fit(&[100, 100], 43), Some(vec![20, 20]));
        assert_eq!(fit(&[100, 100], 44), Some(vec![21, 20]));
        assert_eq!(fit(&[100; 10], 80), None);
        assert_eq!(fit(&[], 80), Some(vec![]));
    }

    #[test]
    fn cuts_are_marked_and_fit() {
        assert_eq!(shorten("abcdef".to_owned(), 6), "abcdef");
        assert_eq!(shorten("abcdefg".to_owned(), 6), "abcde…");
        assert_eq!(shorten("日本語日本語".to_owned(), 6), "日本…");
        assert_eq!(width(&shorten("日本語日本語".to_owned(), 7)), 7);
    }

    #[test]
    fn no_value_controls_the_terminal() {
        assert_eq!(clean("curl\u{1b}[2J/7\r\n"), "curl\\u{1b}[2J/7\\r\\n");
        assert_eq!(clean("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(clean("\u{9b}31m"), "\\u{9b}31m");
        assert_eq!(clean("system:serviceaccount:é"), "system:serviceaccount:é");
    }
}

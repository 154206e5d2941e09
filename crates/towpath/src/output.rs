//! Printing: data on standard output, everything else on standard error.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::Write;

use serde_json::Value;

use crate::cli::Format;
use crate::error::Failure;

/// An error and its hint.
pub(crate) fn error(failure: &Failure) {
    eprintln!("error: {}", failure.message);
    if let Some(hint) = &failure.hint {
        eprintln!("hint: {hint}");
    }
}

/// Progress and remarks.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// Data, as it is. A closed pipe ends the program quietly.
pub(crate) fn data(text: &str) {
    bytes(text.as_bytes());
}

/// Data, as it is.
pub(crate) fn bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// A value for programs; nothing for people, who get a table instead.
pub(crate) fn machine(format: Format, value: &Value) -> Result<bool, Failure> {
    let broken = |error: &dyn std::fmt::Display| Failure::failed(format!("the result cannot be printed: {error}"));
    match format {
        Format::Table => return Ok(false),
        Format::Json => {
            let text = serde_json::to_string_pretty(value).map_err(|error| broken(&error))?;
            data(&format!("{text}\n"));
        }
        Format::Yaml => {
            let text = serde_saphyr::to_string(value).map_err(|error| broken(&error))?;
            data(&text);
        }
    }
    Ok(true)
}

/// A table with a head, columns as wide as their widest cell.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            let pad = width.saturating_sub(cell.chars().count());
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', pad + 2));
        }
        format!("{}\n", text.trim_end())
    };
    let mut text = line(head.to_vec());
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

/// A value in a table: texts without quotes, nothing as a dash.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

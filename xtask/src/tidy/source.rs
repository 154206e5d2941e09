//! Lengths and names of the source.

use std::path::{Path, PathBuf};

/// No file is longer, and nine of ten are shorter than the second number.
const FILE: (usize, usize) = (600, 400);
/// The same for functions.
const FUNCTION: (usize, usize) = (100, 30);
/// Names that say nothing of what is inside.
const NAMELESS: &[&str] = &["util.rs", "utils.rs", "common.rs", "helpers.rs", "misc.rs", "mod.rs"];
/// What must not land. Split, so that this file may.
const UNFINISHED: &[&str] =
    &[concat!("todo", "!("), concat!("unimplemented", "!("), concat!("#[ign", "ore"), concat!("dbg", "!(")];

pub(crate) fn check() -> Result<Vec<String>, String> {
    let mut files = Vec::new();
    collect(Path::new("crates"), &mut files)?;
    collect(Path::new("e2e"), &mut files)?;
    collect(Path::new("fuzz"), &mut files)?;
    collect(Path::new("xtask"), &mut files)?;
    let mut findings = Vec::new();
    let (mut lengths, mut functions) = (Vec::new(), Vec::new());
    let (mut lines, mut unwraps) = (0, 0);
    for file in &files {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let shown = file.display();
        let length = text.lines().count();
        lengths.push(length);
        if length > FILE.0 {
            findings.push(format!("{shown} has {length} lines; {} are allowed", FILE.0));
        }
        let tested =
            file.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "e2e" | "tests.rs")));
        if !tested && NAMELESS.contains(&file.file_name().unwrap_or_default().to_string_lossy().as_ref()) {
            findings.push(format!("{shown}: the name does not say what is inside"));
        }
        for word in UNFINISHED.iter().filter(|word| text.contains(**word)) {
            findings.push(format!("{shown} holds {word}"));
        }
        for (name, line, length) in function_lengths(&text) {
            if length > FUNCTION.0 && !tested {
                findings.push(format!("{shown}:{line}: {name} has {length} lines; {} are allowed", FUNCTION.0));
            }
            functions.push(length);
        }
        if !tested {
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            lines += code.lines().count();
            unwraps += code.matches(".unwrap()").count();
        }
    }
    over(&mut findings, "files", &mut lengths, FILE.1);
    over(&mut findings, "functions", &mut functions, FUNCTION.1);
    if unwraps * 2000 > lines {
        findings.push(format!("{unwraps} unwraps in {lines} lines outside tests; one in 2000 is allowed"));
    }
    Ok(findings)
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = std::fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    for entry in entries {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn over(findings: &mut Vec<String>, what: &str, lengths: &mut [usize], most: usize) {
    lengths.sort_unstable();
    let Some(p90) = lengths.get(lengths.len() * 9 / 10) else { return };
    println!("tidy: {} {what}, nine of ten have at most {p90} lines", lengths.len());
    if *p90 > most {
        findings.push(format!("nine of ten {what} have up to {p90} lines; {most} are allowed"));
    }
}

/// Name, line and length of each function, by the layout that rustfmt gives: it ends at the brace in its own column.
fn function_lengths(text: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let is_fn = ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "async fn ", "pub async fn "]
            .iter()
            .any(|start| code.starts_with(start))
            || (code.starts_with("pub") && code.contains(" fn ") && !code.contains("//"));
        if !is_fn {
            continue;
        }
        let name = code.split("fn ").nth(1).unwrap_or_default().split(['(', '<']).next().unwrap_or_default();
        let indent = line.len() - code.len();
        let end = lines[index..].iter().position(|line| {
            let inner = line.trim_start();
            line.len() - inner.len() == indent && (inner == "}" || line.ends_with(';') || line.ends_with(" }"))
        });
        if let Some(end) = end {
            found.push((name.to_owned(), index + 1, end + 1));
        }
    }
    found
}

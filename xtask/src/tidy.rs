//! The rules of the house. Each says what it found and what is allowed.

mod dependencies;
mod source;

pub(crate) fn run() -> Result<(), String> {
    let mut findings = dependencies::check()?;
    findings.extend(source::check()?);
    if findings.is_empty() {
        println!("tidy: ok");
        return Ok(());
    }
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    Err(format!("tidy: {} findings", findings.len()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_workspace_is_tidy() {
        std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).expect("the workspace's root");
        super::run().expect("tidy");
    }
}

//! The one dialect that both databases take: `$1` for parameters, `BIGINT`, `TEXT` and `BYTES` for columns.

/// Which database a statement is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

/// The statement as `dialect` spells it. Strings, quoted names and comments stay as they are.
pub(crate) fn translate(sql: &str, dialect: Dialect) -> String {
    let mut out = String::with_capacity(sql.len() + 8);
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let length = token_length(rest, first);
        let (token, tail) = rest.split_at(length);
        match (dialect, token) {
            (Dialect::Sqlite, "BYTES") => out.push_str("BLOB"),
            (Dialect::Postgres, "BYTES") => out.push_str("BYTEA"),
            // SQLite takes $1 for a name and numbers it by its first appearance.
            (Dialect::Sqlite, parameter) if first == '$' && parameter.len() > 1 => {
                out.push('?');
                out.push_str(&parameter[1..]);
            }
            _ => out.push_str(token),
        }
        rest = tail;
    }
    out
}

/// The length in bytes of the token that `rest` begins with.
fn token_length(rest: &str, first: char) -> usize {
    let until = |from: usize, end: &str| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
    match first {
        '\'' => until(1, "'"),
        '"' => until(1, "\""),
        '-' if rest.starts_with("--") => until(2, "\n"),
        '/' if rest.starts_with("/*") => until(2, "*/"),
        '$' => 1 + rest[1..].bytes().take_while(u8::is_ascii_digit).count(),
        c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
        c => c.len_utf8(),
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn translates_parameters_and_types_only() {
        let sql = "INSERT INTO t (a, MYBYTES) VALUES ($2, $1, '$1 BYTES', \"BYTES\") -- $3 it's\n, CAST($1 AS BYTES)";
        assert_eq!(
            translate(sql, Dialect::Sqlite),
            "INSERT INTO t (a, MYBYTES) VALUES (?2, ?1, '$1 BYTES', \"BYTES\") -- $3 it's\n, CAST(?1 AS BLOB)"
        );
        assert_eq!(translate("a BYTES NOT NULL, b = $12", Dialect::Postgres), "a BYTEA NOT NULL, b = $12");
    }

    proptest! {
        #[test]
        fn never_panics_and_keeps_what_has_no_mark(text in ".*") {
            let translated = translate(&text, Dialect::Sqlite);
            if !text.contains('$') && !text.contains("BYTES") {
                prop_assert_eq!(translated, text);
            }
        }
    }
}

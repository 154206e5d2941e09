//! The text that says how to reach PostgreSQL, in libpq's two forms: `postgresql://…` and `key=value …`.

use percent_encoding::percent_decode_str;

/// What a text says of TLS, and the text without it: the library knows less of TLS than libpq does.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Text {
    /// `sslmode`.
    pub(super) mode: Option<String>,
    /// `sslrootcert`.
    pub(super) roots: Option<String>,
    /// Everything else, as it was.
    pub(super) rest: String,
}

impl Text {
    pub(super) fn read(text: &str) -> Self {
        let url = ["postgres://", "postgresql://"].iter().find(|scheme| text.starts_with(**scheme));
        match url {
            Some(scheme) => Self::of_url(text, scheme.len()),
            None => Self::of_words(text),
        }
    }

    /// Takes a parameter over, unless it is not about TLS. As with libpq, the last of several counts.
    fn take(&mut self, key: &str, value: String) -> bool {
        match key {
            "sslmode" => self.mode = Some(value),
            "sslrootcert" => self.roots = Some(value),
            _ => return false,
        }
        true
    }

    fn of_url(text: &str, start: usize) -> Self {
        // A password may hold a question mark.
        let host = text[start..].find('@').map_or(start, |at| start + at + 1);
        let Some(query) = text[host..].find('?').map(|at| host + at) else {
            return Self { rest: text.to_owned(), ..Self::default() };
        };
        let mut read = Self::default();
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let others = text[query + 1..].split('&').filter(|parameter| match parameter.split_once('=') {
            Some((key, value)) => !read.take(&decoded(key), decoded(value)),
            None => true,
        });
        let others: Vec<&str> = others.collect();
        let mark = if others.is_empty() { "" } else { "?" };
        read.rest = format!("{}{mark}{}", &text[..query], others.join("&"));
        read
    }

    fn of_words(text: &str) -> Self {
        let mut read = Self::default();
        let mut left = text;
        while let Some((key, value, after)) = parameter(left) {
            let whole = &left[..left.len() - after.len()];
            if !read.take(key, value) {
                read.rest.push_str(whole);
            }
            left = after;
        }
        // What is no parameter is left to the library, which says what is wrong with it.
        read.rest.push_str(left);
        read
    }
}

/// The first parameter of a text, and what follows it.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let text = text.trim_start();
    let end = text.find(|c: char| c == '=' || c.is_whitespace())?;
    let (key, after) = text.split_at(end);
    let after = after.trim_start().strip_prefix('=')?.trim_start();
    let (quoted, start) = if after.starts_with('\'') { (true, 1) } else { (false, 0) };
    let mut value = String::new();
    let mut characters = after[start..].char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Some((key, value, &after[start + at + 1..])),
            c if !quoted && c.is_whitespace() => return Some((key, value, &after[start + at..])),
            c => value.push(c),
        }
    }
    (!quoted).then_some((key, value, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<String>, Option<String>, String) {
        let Text { mode, roots, rest } = Text::read(text);
        (mode, roots, rest)
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn urls() {
        let plain = "postgresql://ada:pa?ss%40word@db.example.org:5433/towpath";
        assert_eq!(read(plain), (None, None, plain.to_owned()));
        let all =
            format!("{plain}?sslmode=verify-full&connect_timeout=3&sslrootcert=%2Fetc%2Fca%20one.pem&options=-c%20x");
        let rest = format!("{plain}?connect_timeout=3&options=-c%20x");
        assert_eq!(read(&all), (some("verify-full"), some("/etc/ca one.pem"), rest));
        assert_eq!(read(&format!("{plain}?sslmode=require")), (some("require"), None, plain.to_owned()));
        assert_eq!(read("postgres://h?sslmode=prefer&sslmode=disable").0, some("disable"), "the last counts");
        assert_eq!(read("postgres://h?broken"), (None, None, "postgres://h?broken".to_owned()));
    }

    #[test]
    fn words() {
        let plain = r"host=/run/postgresql user=towpath password='it\'s sslmode=require' dbname = a\ b";
        assert_eq!(read(plain), (None, None, plain.to_owned()));
        let all = format!(r"{plain} sslmode = verify-ca sslrootcert='/etc/ca one.pem' port=5433");
        assert_eq!(read(&all), (some("verify-ca"), some("/etc/ca one.pem"), format!("{plain} port=5433")));
        assert_eq!(read(r"sslrootcert=/etc/ca\ one.pem host=h"), (None, some("/etc/ca one.pem"), " host=h".to_owned()));
        assert_eq!(read("sslmode='unterminated"), (None, None, "sslmode='unterminated".to_owned()));
        assert_eq!(read("host=h nonsense"), (None, None, "host=h nonsense".to_owned()));
    }

    /// What is left means the same to the library as the whole did.
    #[test]
    fn the_rest_is_read_by_the_library() {
        for text in [
            r"host=db user='a b' sslmode=verify-full password='x\\\'y' sslrootcert=/ca.pem dbname=d port=7",
            "postgresql://a%20b:x%5C'y@db:7/d?sslmode=verify-full&sslrootcert=/ca.pem",
        ] {
            let rest: postgres::Config = Text::read(text).rest.parse().unwrap();
            assert_eq!(rest.get_hosts(), [postgres::config::Host::Tcp("db".to_owned())], "{text}");
            assert_eq!((rest.get_user(), rest.get_dbname()), (Some("a b"), Some("d")), "{text}");
            assert_eq!((rest.get_password(), rest.get_ports()), (Some(&br"x\'y"[..]), &[7][..]), "{text}");
        }
    }
}

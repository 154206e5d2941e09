//! The forms in which programs print a secret.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

/// Fragments shorter than this are not worth hiding: they occur in any text.
const SHORTEST_FRAGMENT: usize = 4;

/// Every form of `secret`, itself first.
pub fn forms(secret: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.as_bytes().to_vec()];
    forms.extend(base64(secret.as_bytes()));
    for kept in ["-_.~", "-_.~!'()*"] {
        let upper = percent(secret, kept);
        forms.push(lower_escapes(&upper));
        forms.push(upper.replace("%20", "+").into_bytes());
        forms.push(upper.into_bytes());
    }
    for ascii in [false, true] {
        for html in [false, true] {
            let text = json(secret, ascii, html);
            forms.push(text.replace('/', "\\/").into_bytes());
            forms.push(text.into_bytes());
        }
    }
    forms.sort();
    forms.dedup();
    forms
}

/// Base64 of `secret` wherever in a longer text it begins: the characters that depend on no neighbour, for each of the
/// three offsets and both alphabets, and the padded whole.
fn base64(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = Vec::with_capacity(8);
    for engine in [&STANDARD, &URL_SAFE] {
        for offset in 0..3_usize {
            let mut bytes = vec![0; offset];
            bytes.extend_from_slice(secret);
            let text = engine.encode(&bytes);
            let start = (offset * 8).div_ceil(6);
            let end = bytes.len() * 8 / 6;
            if end >= start + SHORTEST_FRAGMENT {
                forms.push(text.as_bytes()[start..end].to_vec());
            }
            // The end of a text may be the end of the secret: its last character is then padded.
            if text.trim_end_matches('=').len() >= start + SHORTEST_FRAGMENT {
                forms.push(text.as_bytes()[start..].to_vec());
            }
        }
    }
    forms
}

fn percent(secret: &str, kept: &str) -> String {
    let mut text = String::with_capacity(secret.len() * 3);
    for byte in secret.bytes() {
        if byte.is_ascii_alphanumeric() || kept.as_bytes().contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// The same percent-encoded text with `%2f` in place of `%2F`.
fn lower_escapes(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            for byte in bytes.iter_mut().skip(at + 1).take(2) {
                byte.make_ascii_lowercase();
            }
            at += 2;
        }
        at += 1;
    }
    bytes
}

/// What stands between the quotes of a JSON string; with `ascii` as Python writes it, with `html` as Go does.
fn json(secret: &str, ascii: bool, html: bool) -> String {
    let mut text = String::with_capacity(secret.len() + 8);
    for c in secret.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '<' | '>' | '&' if html => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c if c < ' ' => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            c if ascii && !c.is_ascii() => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    text.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_fragments_depend_on_no_neighbour() {
        let secret = b"hunter2-and-more";
        let fragments = base64(secret);
        for before in 0..5 {
            for after in 0..4 {
                let text: Vec<u8> = [&vec![b'<'; before][..], secret, &vec![b'>'; after][..]].concat();
                let encoded = STANDARD.encode(text);
                let hit = |f: &Vec<u8>| encoded.as_bytes().windows(f.len()).any(|window| window == f.as_slice());
                assert!(fragments.iter().any(hit), "{before} {after}");
            }
        }
    }

    #[test]
    fn a_short_secret_gives_no_fragments_of_a_few_letters() {
        assert!(forms("a1").iter().all(|form| form.len() >= 2), "{:?}", forms("a1"));
    }
}

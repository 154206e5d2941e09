use super::*;
use proptest::prelude::*;

fn tree(text: &str) -> Result<Node, WorkflowError> {
    read(&Source::new("w.yml", text), text)
}

/// The tree as JSON-like text, without places.
fn show(node: &Node) -> String {
    match &node.kind {
        Kind::Scalar(scalar) => serde_json::to_string(&scalar.value()).unwrap(),
        Kind::List(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(",")),
        Kind::Map(entries) => {
            let entries: Vec<_> = entries.iter().map(|(key, value)| format!("{}:{}", key.text, show(value))).collect();
            format!("{{{}}}", entries.join(","))
        }
    }
}

#[test]
fn reads() {
    let table = [
        ("a: 1\nb: [x, 'true', true]\n", r#"{a:1,b:["x","true",true]}"#),
        ("on:\n  push:\n", "{on:{push:null}}"),
        ("a: |\n  x\n  y\n", r#"{a:"x\ny\n"}"#),
        ("a: >-\n  x\n  y\n", r#"{a:"x y"}"#),
        ("a: !!str 1", r#"{a:"1"}"#),
        ("a: &x [1, 2]\nb: *x\nc: *x\n", "{a:[1,2],b:[1,2],c:[1,2]}"),
        ("a: &x k\nb: {*x : 1}\n", r#"{a:"k",b:{k:1}}"#),
        ("\u{feff}a: 1", "{a:1}"),
        ("--- \na: 1\n...\n", "{a:1}"),
        ("a: 1\r\nb: 2\r\n", "{a:1,b:2}"),
    ];
    for (text, shown) in table {
        assert_eq!(show(&tree(text).unwrap()), shown, "{text}");
    }
}

#[test]
fn knows_places() {
    let root = tree("a: 1\nlist:\n  - x\n  - key: 'v'\n").unwrap();
    let item = match &root.get("list").unwrap().kind {
        Kind::List(items) => items[1].clone(),
        _ => panic!("a list"),
    };
    assert_eq!(item.place, Place { line: 4, column: 5 });
    assert_eq!(item.get("key").unwrap().place, Place { line: 4, column: 10 });
}

#[test]
fn refuses() {
    let table = [
        ("", 1, "empty"),
        ("# only a comment\n", 1, "empty"),
        ("a: 1\nA: 2\n", 2, "`A` is there already, on line 1"),
        ("a: [1\n", 2, "not valid YAML"),
        ("a: b: c\n", 1, "not valid YAML"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("a: !custom 1", 1, "the tag `!custom`"),
        ("a: !!binary aGk=", 1, "binary"),
        ("? [a]\n: 1\n", 1, "a key must be a text"),
        ("a: &x [*x]", 1, "inside of what it names"),
        ("a: *nothing", 1, "not valid YAML"),
        ("a: 1\n\tb: 2\n", 2, "a tab indents"),
    ];
    for (text, line, message) in table {
        let error = tree(text).unwrap_err();
        assert!(error.message.contains(message), "{text:?}: {error}");
        assert_eq!(error.line, line, "{text:?}: {error}");
    }
}

#[test]
fn alias_bombs_are_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = level - 1;
        let list = vec![format!("*a{before}"); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{list}]\n"));
    }
    assert!(tree(&text).unwrap_err().message.contains("too large"));

    let text = format!("a: &a '{}'\nb: [{}]\n", "x".repeat(500_000), vec!["*a"; 100].join(", "));
    assert!(tree(&text).unwrap_err().message.contains("too large"));

    let mut text = "a0: &a0 [x]\n".to_owned();
    for level in 1..80 {
        text.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    assert!(tree(&text).unwrap_err().message.contains("deeper"));
}

#[test]
fn deep_and_large_texts_are_refused() {
    for text in ["[".repeat(10_000), "{a: ".repeat(10_000), "- ".repeat(10_000), "[".repeat(100) + &"]".repeat(100)] {
        assert!(tree(&text).is_err());
    }
    assert!(tree(&"a".repeat(MAX_BYTES + 1)).unwrap_err().message.contains("1048577 bytes"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn never_panics(text in ".{0,200}") {
        let _ = tree(&text);
    }

    #[test]
    fn never_panics_on_yaml_like_text(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "a", ": ", "- ", "\n", "  ", "[", "]", "{", "}", ", ", "&x ", "*x", "'", "\"", "|", ">", "#", "!", "!!str ",
                "---", "...", "? ", "\t", "%", "@", "\\", "é", "\u{85}", "\r", "<<", "~", "|2-", "\u{feff}", "%YAML 1.2\n",
            ]),
            0..40,
        )
    ) {
        let _ = tree(&parts.concat());
    }
}

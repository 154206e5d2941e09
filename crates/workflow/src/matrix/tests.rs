use super::*;
use proptest::prelude::*;

fn object(json: &str) -> Object {
    serde_json::from_str(json).unwrap()
}

/// The combinations as JSON.
fn show(json: &str) -> Vec<String> {
    cells(&object(json)).unwrap().iter().map(|cell| serde_json::to_string(&cell.values).unwrap()).collect()
}

#[test]
fn lists_are_multiplied_in_order() {
    assert_eq!(
        show(r#"{"version":[10,12],"os":["a","b"]}"#),
        [
            r#"{"version":10,"os":"a"}"#,
            r#"{"version":10,"os":"b"}"#,
            r#"{"version":12,"os":"a"}"#,
            r#"{"version":12,"os":"b"}"#
        ]
    );
}

/// The example of GitHub's documentation for `include`.
#[test]
fn documented_include() {
    let matrix = r#"{"fruit":["apple","pear"],"animal":["cat","dog"],"include":[
        {"color":"green"},{"color":"pink","animal":"cat"},{"fruit":"apple","shape":"circle"},
        {"fruit":"banana"},{"fruit":"banana","animal":"cat"}]}"#;
    assert_eq!(
        show(matrix),
        [
            r#"{"fruit":"apple","animal":"cat","color":"pink","shape":"circle"}"#,
            r#"{"fruit":"apple","animal":"dog","color":"green","shape":"circle"}"#,
            r#"{"fruit":"pear","animal":"cat","color":"pink"}"#,
            r#"{"fruit":"pear","animal":"dog","color":"green"}"#,
            r#"{"fruit":"banana"}"#,
            r#"{"fruit":"banana","animal":"cat"}"#,
        ]
    );
}

#[test]
fn documented_expanding_and_adding() {
    let matrix = r#"{"os":["windows-latest","ubuntu-latest"],"node":[14,16],
        "include":[{"os":"windows-latest","node":16,"npm":6}]}"#;
    assert_eq!(show(matrix)[1], r#"{"os":"windows-latest","node":16,"npm":6}"#);
    let matrix = r#"{"os":["macos-latest","windows-latest"],"version":[12,14,16],
        "include":[{"os":"windows-latest","version":17}]}"#;
    let cells = show(matrix);
    assert_eq!((cells.len(), cells[6].as_str()), (7, r#"{"os":"windows-latest","version":17}"#));
    let matrix =
        r#"{"include":[{"site":"production","datacenter":"site-a"},{"site":"staging","datacenter":"site-b"}]}"#;
    assert_eq!(show(matrix).len(), 2);
}

/// The example of GitHub's documentation for `exclude`.
#[test]
fn documented_exclude() {
    let matrix = r#"{"os":["macos-latest","windows-latest"],"version":[12,14,16],"environment":["staging","production"],
        "exclude":[{"os":"macos-latest","version":12,"environment":"production"},{"os":"windows-latest","version":16}]}"#;
    let cells = show(matrix);
    assert_eq!(cells.len(), 9);
    assert!(!cells.contains(&r#"{"os":"macos-latest","version":12,"environment":"production"}"#.to_owned()));
    assert!(cells.iter().all(|cell| !cell.contains(r#""windows-latest","version":16"#)));
}

#[test]
fn include_comes_after_exclude() {
    let matrix = r#"{"a":[1,2],"exclude":[{"a":2}],"include":[{"a":2,"b":"x"}]}"#;
    assert_eq!(show(matrix), [r#"{"a":1}"#, r#"{"a":2,"b":"x"}"#]);
}

#[test]
fn filters_compare_as_expressions_do() {
    // Texts without case, numbers with texts, and mappings in part.
    assert_eq!(show(r#"{"a":["X","y"],"exclude":[{"A":"x"}]}"#), [r#"{"a":"y"}"#]);
    assert_eq!(show(r#"{"a":["1",2],"exclude":[{"a":1}]}"#), [r#"{"a":2}"#]);
    let matrix = r#"{"n":[{"v":1,"env":"x"},{"v":2}],"exclude":[{"n":{"v":1}}]}"#;
    assert_eq!(show(matrix), [r#"{"n":{"v":2}}"#]);
    assert_eq!(show(r#"{"n":[[1,2],[1,3]],"exclude":[{"n":[1,3]}]}"#), [r#"{"n":[1,2]}"#]);
}

#[test]
fn everything_may_be_excluded() {
    assert_eq!(show(r#"{"a":[1],"exclude":[{"a":1}]}"#), Vec::<String>::new());
}

#[test]
fn labels_leave_out_what_include_added() {
    let found =
        cells(&object(r#"{"os":["x"],"n":[{"v":1.10,"w":null,"e":""}],"include":[{"os":"x","extra":"y"}]}"#)).unwrap();
    assert_eq!(found[0].label, ["x", "1.1"]);
    assert_eq!(cells(&object(r#"{"include":[{"a":1,"b":"two"}]}"#)).unwrap()[0].label, ["1", "two"]);
}

#[test]
fn refuses() {
    let table = [
        ("{}", None, "empty"),
        (r#"{"include":[]}"#, None, "empty"),
        (r#"{"a":[]}"#, Some("a"), "`a` of the matrix has no values"),
        (r#"{"a":"x"}"#, Some("a"), "must be a list, not `x`"),
        (r#"{"a":[1],"include":{}}"#, Some("include"), "a list of mappings"),
        (r#"{"a":[1],"include":["x"]}"#, Some("include"), "must be a mapping, not `x`"),
        (r#"{"a":[1],"include":[{}]}"#, Some("include"), "is empty"),
        (r#"{"os":[1],"exclude":[{"oss":1}]}"#, Some("exclude"), "did you mean `os`?"),
    ];
    for (json, key, message) in table {
        let error = cells(&object(json)).unwrap_err();
        assert_eq!(error.key.as_deref(), key, "{json}");
        assert!(error.message.contains(message), "{json}: {}", error.message);
    }
}

#[test]
fn at_most_256_jobs() {
    let list = |length: usize| Value::Array((0..length).map(|n| Value::from(n as f64)).collect());
    let square = |length: usize| Object::new().with("a", list(length)).with("b", list(length));
    assert_eq!(cells(&square(16)).unwrap().len(), 256);
    assert!(cells(&square(17)).unwrap_err().message.contains("more than 256"));
    // Exclusions count first.
    let excluded = square(17)
        .with("exclude", Value::Array((0..2).map(|n| Value::Object(Object::new().with("a", f64::from(n)))).collect()));
    assert_eq!(cells(&excluded).unwrap().len(), 255);
    // And no number of lists makes it count for long.
    let many: Object = (0..60).map(|n| (format!("k{n}"), list(100))).collect();
    assert!(cells(&many).unwrap_err().message.contains("256"));
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        "[ab1]{0,2}".prop_map(Value::String),
        (0..3_i64).prop_map(Value::from)
    ]
}

fn any_matrix() -> impl Strategy<Value = Object> {
    let value = leaf().prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec(("[abc]|include|exclude", inner), 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    });
    prop::collection::vec(("[abc]|include|exclude", value), 0..4).prop_map(|entries| entries.into_iter().collect())
}

proptest! {
    #[test]
    fn never_panics_and_stays_in_bounds(matrix in any_matrix()) {
        if let Ok(cells) = cells(&matrix) {
            prop_assert!(cells.len() <= MAX_CELLS);
        }
    }
}

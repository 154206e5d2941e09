//! Whatever the expression, nothing panics.

use super::contexts;
use crate::{Contexts, Evaluator, Object, Status, Value, expand};
use proptest::prelude::*;

/// Pieces from which expressions are made that are often nearly right.
const PIECES: [&str; 40] = [
    "github",
    ".",
    "event",
    "[",
    "]",
    "(",
    ")",
    "'a'",
    "''",
    "1",
    "0",
    "-1",
    "1.5",
    "*",
    ".*",
    ",",
    " ",
    "!",
    "==",
    "!=",
    "<",
    ">=",
    "&&",
    "||",
    "contains(",
    "format('{0}{1}',",
    "join(",
    "toJSON(",
    "fromJSON(",
    "'[1,{\"a\":[]}]'",
    "null",
    "true",
    "NaN",
    "steps",
    "labels",
    "name",
    "success()",
    "case(",
    "'",
    "é",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn never_panics_on_any_text(text in ".{0,100}") {
        let contexts = contexts();
        let evaluator = Evaluator::new(&contexts, Status::SUCCESS);
        let _ = (evaluator.evaluate(&text), evaluator.expand(&text), evaluator.condition(Some(&text)));
    }

    #[test]
    fn never_panics_on_likely_expressions(pieces in prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..25)) {
        let text = pieces.concat();
        let contexts = contexts();
        let evaluator = Evaluator::new(&contexts, Status::SUCCESS);
        let _ = evaluator.evaluate(&text);
        let _ = evaluator.expand(&format!("a ${{{{ {text} }}}} ${{{{{text}"));
    }

    #[test]
    fn errors_point_into_the_expression(pieces in prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..15)) {
        let text = pieces.concat();
        let contexts = contexts();
        if let Err(error) = Evaluator::new(&contexts, Status::SUCCESS).evaluate(&text) {
            prop_assert!(error.position <= text.chars().count());
        }
    }

    #[test]
    fn json_there_and_back(text in "[ -~é\\n\\t\u{1}\u{2028}]{0,30}") {
        let contexts = Contexts::new().with("inputs", Object::new().with("x", text.as_str()));
        let back = Evaluator::new(&contexts, Status::SUCCESS).evaluate("fromJSON(toJSON(inputs)).x");
        prop_assert_eq!(back, Ok(Value::String(text)));
    }

    #[test]
    fn equality_is_symmetric(left in ".{0,4}", right in prop_oneof![".{0,4}", "[0-9]{1,2}"]) {
        let contexts = Contexts::new().with("inputs", Object::new().with("l", left).with("r", right));
        let evaluator = Evaluator::new(&contexts, Status::SUCCESS);
        prop_assert_eq!(evaluator.evaluate("inputs.l == inputs.r"), evaluator.evaluate("inputs.r == inputs.l"));
    }

    #[test]
    fn escaping_holds(text in "[${} 'a]{0,20}") {
        let escaped = super::super::template::escape(&text);
        prop_assert_eq!(expand(&escaped, &Contexts::new(), Status::SUCCESS), Ok(text));
    }
}

use super::evaluate::MAX_BYTES;
use super::parse::MAX_LENGTH;
use crate::{Contexts, Evaluator, Object, Setting, Status, Value, condition, expand};

fn contexts() -> Contexts {
    let json = r#"{
        "github": {"ref": "refs/heads/main", "sha": "abc", "actor": "Mona", "run_number": 7, "event": {
            "forced": false, "ref": null, "size": 3, "labels": [{"name": "Bug"}, {"name": "help wanted"}, {"id": 5}],
            "commits": [{"author": {"name": "a"}}, {"author": {"name": "b"}}], "matrix": [[1, 2], [3, 4]]}},
        "env": {"EMPTY": "", "TEN": "10", "HEX": "0xff", "WORD": "Word"},
        "vars": {"list": "[1,2,3]"},
        "steps": {"a": {"outputs": {"x-y": "1"}}, "b": {"outputs": {"z": "2"}}},
        "needs": {"build": {"result": "success", "outputs": {"tag": "v1"}}},
        "fruits": {"scallions": {"colors": ["green", "white", "red"], "pounds": 1.5}, "beets": {"colors": ["purple", "red"]}}
    }"#;
    let mut contexts: Contexts = serde_json::from_str(json).unwrap();
    // `fruits` is from the documentation; only known names can be asked for.
    let fruits = contexts.get("fruits").cloned().unwrap();
    contexts.set("inputs", fruits);
    contexts
}

fn eval(expression: &str) -> Result<Value, String> {
    let contexts = contexts();
    Evaluator::new(&contexts, Status::SUCCESS).evaluate(expression).map_err(|error| error.to_string())
}

fn json(expression: &str) -> String {
    serde_json::to_string(&eval(expression).unwrap_or_else(|error| panic!("{expression}: {error}"))).unwrap()
}

#[test]
fn literals_and_operators() {
    let table = [
        ("null", "null"),
        ("true", "true"),
        ("711", "711"),
        ("-9.2", "-9.2"),
        ("0xff", "255"),
        ("-2.99e-2", "-0.0299"),
        ("+.5", "0.5"),
        ("'Mona''s'", r#""Mona's""#),
        ("''", r#""""#),
        ("!true", "false"),
        ("!!'x'", "true"),
        ("!''", "true"),
        ("1 < 2", "true"),
        ("2 <= 2", "true"),
        ("3 > 4", "false"),
        ("'b' > 'A'", "true"),
        ("'a' >= 'A'", "true"),
        ("true > false", "true"),
        ("null >= null", "true"),
        ("null > null", "false"),
        ("NaN == NaN", "false"),
        ("NaN != NaN", "true"),
        ("Infinity > 1e300", "true"),
        ("'1' == 1", "true"),
        ("'0xff' == 255", "true"),
        ("'' == 0", "true"),
        ("' ' == 0", "true"),
        ("null == 0", "true"),
        ("null == ''", "true"),
        ("null == false", "true"),
        ("true == 1", "true"),
        ("true == '1'", "true"),
        ("true == 'true'", "false"),
        ("'abc' == 0", "false"),
        ("'ABC' == 'abc'", "true"),
        ("'É' == 'é'", "true"),
        ("'a' != 'A'", "false"),
        ("'x' && 'y'", r#""y""#),
        ("'' && 'y'", r#""""#),
        ("'' || 'y'", r#""y""#),
        ("0 || null || false", "false"),
        ("github.ref == 'refs/heads/main' && 'prod' || 'dev'", r#""prod""#),
        // Relations bind tighter than equality, `&&` tighter than `||`, `!` tightest.
        ("1 < 2 == true", "true"),
        ("false && false || true", "true"),
        ("true || false && false", "true"),
        ("!false && false", "false"),
        ("(true || false) && false", "false"),
        ("!(1 == 2)", "true"),
    ];
    for (expression, result) in table {
        assert_eq!(json(expression), result, "{expression}");
    }
}

#[test]
fn properties_items_and_filters() {
    let table = [
        ("github.sha", r#""abc""#),
        ("GITHUB.Sha", r#""abc""#),
        ("github['sha']", r#""abc""#),
        ("gitea.sha", r#""abc""#),
        ("forgejo.ref", r#""refs/heads/main""#),
        ("github.nothing", "null"),
        ("github.nothing.deeper[0]", "null"),
        ("github.sha.length", "null"),
        ("secrets.TOKEN", "null"),
        ("github.event.labels[0].name", r#""Bug""#),
        ("github.event.labels['0'].name", r#""Bug""#),
        ("github.event.labels[1.9].name", r#""help wanted""#),
        ("github.event.labels[-1]", "null"),
        ("github.event.labels[99]", "null"),
        ("github.event.labels['x']", "null"),
        ("github.event.labels[github.event.labels]", "null"),
        ("steps.a.outputs.x-y", r#""1""#),
        ("github.event.labels.*.name", r#"["Bug","help wanted"]"#),
        ("github.event.labels[*].name", r#"["Bug","help wanted"]"#),
        ("github.event.commits.*.author.name", r#"["a","b"]"#),
        ("github.event.matrix.*[0]", "[1,3]"),
        ("github.event.matrix.*.*", "[1,2,3,4]"),
        ("steps.*.outputs.*", r#"["1","2"]"#),
        ("inputs.*.colors", r#"[["green","white","red"],["purple","red"]]"#),
        ("github.sha.*", "[]"),
        ("github.nothing.*", "[]"),
        ("fromJSON('[{\"a\":1},{\"a\":2}]').*.a", "[1,2]"),
        ("fromJSON('[5,6]')[1]", "6"),
        ("fromJSON('{\"A\":{\"b\":3}}').a.B", "3"),
        ("(github).sha", r#""abc""#),
        ("github.event.true", "null"),
        ("github.event == github.event", "true"),
        ("github.event == github", "false"),
        ("fromJSON('[]') == fromJSON('[]')", "false"),
        ("github.event == null", "false"),
    ];
    for (expression, result) in table {
        assert_eq!(json(expression), result, "{expression}");
    }
}

#[test]
fn functions() {
    let table = [
        ("contains('Hello world', 'LLO')", "true"),
        ("contains('abc', '')", "true"),
        ("contains(123, 2)", "true"),
        ("contains(null, 'a')", "false"),
        ("contains(github.event.labels.*.name, 'bug')", "true"),
        ("contains(github.event.labels.*.name, 'bu')", "false"),
        ("contains(fromJSON('[1, \"2\"]'), 2)", "true"),
        ("contains(github.event, 'x')", "false"),
        ("contains('x', github.event)", "false"),
        ("contains(fromJSON('[\"push\", \"pull_request\"]'), 'push')", "true"),
        ("startsWith('Hello', 'he')", "true"),
        ("startsWith('Hello', 'x')", "false"),
        ("endsWith('Hello world', 'LD')", "true"),
        ("endsWith(10, 0)", "true"),
        ("startsWith(github.event, 'a')", "false"),
        ("format('Hello {0} {1} {2}', 'Mona', 'the', 'Octocat')", r#""Hello Mona the Octocat""#),
        ("format('{{Hello {0}!}}', 'Mona')", r#""{Hello Mona!}""#),
        ("format('{0}{0}', 1.50)", r#""1.51.5""#),
        ("format('{0}', github.event)", r#""Object""#),
        ("format('{0}', github.event.labels)", r#""Array""#),
        ("format('x')", r#""x""#),
        ("join(github.event.labels.*.name, ', ')", r#""Bug, help wanted""#),
        ("join(fromJSON('[1,null,true,\"x\"]'))", r#""1,,true,x""#),
        ("join('one', '-')", r#""one""#),
        ("join(github.event)", r#""""#),
        ("join(fromJSON('[]'))", r#""""#),
        ("join(fromJSON('[1,2]'), null)", r#""12""#),
        ("join(fromJSON('[1,2]'), github.event)", r#""1,2""#),
        ("toJSON('a\"b')", r#""\"a\\\"b\"""#),
        ("toJSON(null)", r#""null""#),
        ("toJSON(fromJSON('[]'))", r#""[]""#),
        ("toJSON(fromJSON('{}'))", r#""{}""#),
        ("toJSON(fromJSON('{\"b\":[1,{}],\"a\":1.50}'))", r#""{\n  \"b\": [\n    1,\n    {}\n  ],\n  \"a\": 1.5\n}""#),
        ("toJSON(github.event.commits.*.author.name)", r#""[\n  \"a\",\n  \"b\"\n]""#),
        ("fromJSON('true')", "true"),
        ("fromJSON(vars.list)[2]", "3"),
        ("fromJSON(env.TEN) + 0", ""),
        ("fromjson('\"x\"')", r#""x""#),
        ("case(false, 1, true, 2, 3)", "2"),
        ("case(1 == 2, 'a', 'b')", r#""b""#),
        ("success()", "true"),
        ("always()", "true"),
        ("failure()", "false"),
        ("Cancelled()", "false"),
    ];
    for (expression, result) in table {
        if result.is_empty() {
            assert!(eval(expression).is_err(), "{expression}");
        } else {
            assert_eq!(json(expression), result, "{expression}");
        }
    }
}

#[test]
fn what_cannot_be_read_says_why_and_where() {
    let table = [
        ("", 0, "ends too early"),
        ("github.", 7, "ends too early"),
        ("a b", 0, "there is no context `a`"),
        ("github sha", 7, "unexpected symbol `sha`"),
        ("githb.sha", 0, "did you mean `github`?"),
        ("1 +", 2, "unexpected symbol `+`"),
        ("1 = 1", 2, "did you mean `==`?"),
        ("true & false", 5, "did you mean `&&`?"),
        ("'abc", 0, "not closed"),
        ("\"abc\"", 0, "single quotes"),
        ("(1", 2, "`)` is missing"),
        ("1)", 1, "unexpected symbol `)`"),
        ("github[1", 8, "`]` is missing"),
        ("contains('a')", 0, "too few arguments: 1 instead of 2"),
        ("contains('a', 'b', 'c')", 0, "too many arguments"),
        ("hashFile('x')", 0, "did you mean `hashFiles`?"),
        ("nothing('x')", 0, "there is no function `nothing`"),
        ("case(true, 1, 2, 3)", 0, "odd number"),
        ("success('x')", 0, "too many"),
        ("'a'.b", 3, "unexpected symbol `.`"),
        ("1.2.3", 0, "unexpected symbol `1.2.3`"),
        ("github.*x", 8, "unexpected symbol `x`"),
        ("github..sha", 7, "unexpected symbol `.sha`"),
        ("!", 1, "ends too early"),
        ("a$b", 0, "unexpected symbol `a$b`"),
        ("github == == 1", 10, "unexpected symbol `==`"),
        (",", 0, "unexpected symbol `,`"),
        ("contains('a',)", 13, "unexpected symbol `)`"),
    ];
    for (expression, position, message) in table {
        let contexts = contexts();
        let error = Evaluator::new(&contexts, Status::SUCCESS).evaluate(expression).unwrap_err();
        assert!(error.message.contains(message), "{expression}: {error}");
        assert_eq!(error.position, position, "{expression}: {error}");
    }
}

#[test]
fn what_cannot_be_evaluated_says_why() {
    let table = [
        ("fromJSON('{')", "fromJSON cannot read"),
        ("fromJSON('')", "empty text"),
        ("fromJSON(needs.build.outputs.missing)", "empty text"),
        ("format('{1}', 'a')", "names {1}"),
        ("format('{', 'a')", "not valid"),
        ("hashFiles('x')", "no files to look at"),
        ("case('x', 1, 2)", "neither true nor false"),
    ];
    for (expression, message) in table {
        let error = eval(expression).unwrap_err();
        assert!(error.contains(message), "{expression}: {error}");
    }
}

#[test]
fn limits() {
    let long = format!("'{}'", "x".repeat(MAX_LENGTH));
    assert!(eval(&long).unwrap_err().contains("longer than 21000"));
    assert!(eval(&format!("'{}'", "x".repeat(MAX_LENGTH - 2))).is_ok());

    // 50 levels are the most: 49 properties of a context.
    assert!(eval(&format!("github{}", ".a".repeat(49))).is_ok());
    assert!(eval(&format!("github{}", ".a".repeat(50))).unwrap_err().contains("deeper than 50"));
    assert!(eval(&format!("{}true", "!".repeat(49))).is_ok());
    for deep in [
        format!("{}true", "!".repeat(10_000)),
        format!("1{}", " == 1".repeat(3000)),
        format!("github{}", ".*".repeat(5000)),
        format!("{}1{}", "(".repeat(5000), ")".repeat(5000)),
        format!("github{}", "[github".repeat(2000)),
        format!("{}1{}", "format('',".repeat(1000), ")".repeat(1000)),
    ] {
        assert!(eval(&deep).is_err());
    }
    // Long chains are flat, and parentheses add no level.
    assert_eq!(eval(&format!("true{}", " && true".repeat(2000))), Ok(Value::Bool(true)));
    assert_eq!(eval(&format!("{}1{}", "(".repeat(90), ")".repeat(90))), Ok(Value::Number(1.0)));
}

#[test]
fn what_grows_without_bound_is_refused() {
    let mut expression = "'0123456789'".to_owned();
    for _ in 0..30 {
        expression = format!("format('{{0}}{{0}}{{0}}{{0}}', {expression})");
    }
    assert!(eval(&expression).unwrap_err().contains("10 MiB"));
    let big = Contexts::new().with("github", Object::new().with("event", "x".repeat(MAX_BYTES / 4)));
    let evaluator = Evaluator::new(&big, Status::SUCCESS);
    assert!(evaluator.evaluate("toJSON(github)").is_ok());
    assert!(evaluator.evaluate("toJSON(toJSON(toJSON(github)))").is_ok());
    assert!(evaluator.evaluate("format('{0}{0}{0}{0}{0}', github.event)").is_err());
    assert!(evaluator.evaluate("fromJSON(toJSON(github))").is_err());
    assert!(evaluator.expand(&"${{ github.event }}".repeat(5)).is_err());
}

#[test]
fn texts_with_expressions() {
    let contexts = contexts();
    let table = [
        ("plain", "plain"),
        ("", ""),
        ("${{ github.sha }}", "abc"),
        ("a ${{ github.sha }} b ${{ github.run_number }}", "a abc b 7"),
        ("${{ github.nothing }}", ""),
        ("x${{ github.event.forced }}", "xfalse"),
        ("x${{ github.event }}", "xObject"),
        ("${{ '}}' }}", "}}"),
        ("${{ format('{0}', '${{') }}", "${{"),
        ("}} ${ { {{ x", "}} ${ { {{ x"),
        ("${{github.sha}}}", "abc}"),
        ("${{ 1.0 }}", "1"),
        ("a\n${{\n  github.sha\n}}\nb\n", "a\nabc\nb\n"),
    ];
    for (text, result) in table {
        assert_eq!(expand(text, &contexts, Status::SUCCESS).as_deref(), Ok(result), "{text}");
    }
    for (text, occurrence, message) in [
        ("${{ github.sha", 0, "`}}` is missing"),
        ("a ${{ }} b", 0, "no expression between"),
        ("${{ github.sha }} ${{ githb }}", 1, "did you mean `github`?"),
        ("${{ github.event }}", 0, "toJSON() makes one"),
        ("x ${{ insert }}", 0, "must stand alone"),
        ("${{ insert }}", 0, "can be a key only"),
    ] {
        let error = expand(text, &contexts, Status::SUCCESS).unwrap_err();
        assert!(error.message.contains(message), "{text}: {error}");
        assert_eq!(error.occurrence, occurrence, "{text}");
    }
}

#[test]
fn escaped_texts_expand_to_themselves() {
    for text in ["", "a", "${{ secrets.X }}", "${{${{ }}", "x ${{ '' }} }}"] {
        let escaped = super::template::escape(text);
        assert_eq!(expand(&escaped, &Contexts::new(), Status::SUCCESS).as_deref(), Ok(text), "{escaped}");
    }
}

#[test]
fn conditions() {
    let contexts = contexts();
    let table = [
        (None, [true, false, false, false]),
        (Some(""), [true, false, false, false]),
        (Some("  "), [true, false, false, false]),
        (Some("true"), [true, false, false, false]),
        (Some("false"), [false; 4]),
        (Some("${{ true }}"), [true, false, false, false]),
        (Some("always()"), [true; 4]),
        (Some("failure()"), [false, true, false, false]),
        (Some("cancelled()"), [false, false, true, false]),
        (Some("success() || failure()"), [true, true, false, false]),
        (Some("!cancelled()"), [true, true, false, true]),
        (Some("always() && github.sha == 'abc'"), [true; 4]),
        (Some("${{ always() && false }}"), [false; 4]),
        (Some("github.ref == 'refs/heads/main'"), [true, false, false, false]),
        (Some("needs.build.result == 'success'"), [true, false, false, false]),
        // A text around an expression is a text, and that is true unless it is empty.
        (Some("${{ false }} || false"), [true, false, false, false]),
        (Some("${{ failure() }} x"), [true; 4]),
    ];
    let states = [Status::SUCCESS, Status::FAILURE, Status::CANCELLED, Status::SKIPPED];
    for (expression, results) in table {
        for (status, result) in states.into_iter().zip(results) {
            assert_eq!(condition(expression, &contexts, status), Ok(result), "{expression:?} {status:?}");
        }
    }
    assert!(condition(Some("github.ref = 'x'"), &contexts, Status::SUCCESS).is_err());
}

#[test]
fn status_of_needed_jobs() {
    use model::JobResult::{Cancelled, Failure, Skipped, Success};
    assert_eq!(Status::of_needs([], false), Status::SUCCESS);
    assert_eq!(Status::of_needs([Success, Success], false), Status::SUCCESS);
    assert_eq!(Status::of_needs([Success, Failure], false), Status::FAILURE);
    assert_eq!(Status::of_needs([Skipped], false), Status::SKIPPED);
    assert_eq!(Status::of_needs([Cancelled], false), Status::SKIPPED);
    assert_eq!(Status::of_needs([Success], true), Status::CANCELLED);
}

#[test]
fn hash_files_asks_the_caller() {
    let contexts = contexts();
    let hash = |patterns: &[String]| match patterns {
        [only] if only == "bad" => Err("no such pattern".to_owned()),
        _ => Ok(patterns.join("|")),
    };
    let evaluator = Evaluator::new(&contexts, Status::SUCCESS).hash_files(&hash);
    assert_eq!(evaluator.expand("k-${{ hashFiles('**/a', github.sha) }}").as_deref(), Ok("k-**/a|abc"));
    assert!(evaluator.evaluate("hashFiles('bad')").unwrap_err().message.contains("no such pattern"));
}

#[test]
fn mappings_settings_and_types() {
    let contexts = contexts();
    let evaluator = Evaluator::new(&contexts, Status::SUCCESS);
    let map = |entries: &[(&str, &str)]| {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let env =
        map(&[("${{ insert }}", "${{ env }}"), ("TEN", "${{ github.run_number }}"), ("K_${{ github.sha }}", "v")]);
    let expanded = evaluator.expand_map(&env).unwrap();
    assert_eq!(expanded.get("TEN").map(String::as_str), Some("7"));
    assert_eq!(expanded.get("WORD").map(String::as_str), Some("Word"));
    assert_eq!(expanded.get("K_abc").map(String::as_str), Some("v"));
    assert!(evaluator.expand_map(&map(&[("A", "${{ github.event }}")])).unwrap_err().message.contains("`A`"));
    assert!(evaluator.expand_map(&map(&[("${{ insert }}", "${{ github.sha }}")])).is_err());
    assert_eq!(evaluator.expand_map(&map(&[("${{ insert }}", "${{ null }}")])), Ok(map(&[])));

    let setting = |text: &str| Setting::Expression(text.to_owned());
    assert_eq!(evaluator.flag(&Setting::Is(true)), Ok(true));
    assert_eq!(evaluator.flag(&setting("${{ github.event.forced }}")), Ok(false));
    assert_eq!(evaluator.flag(&setting("${{ 'true' }}")), Ok(true));
    assert!(evaluator.flag(&setting("${{ github.event.size }}")).is_err());
    assert!(evaluator.flag(&setting("${{ github.nothing }}")).is_err());
    let minutes = |text: &str| evaluator.minutes(&Setting::Expression(text.to_owned()));
    assert_eq!(minutes("${{ github.event.size }}"), Ok(3));
    assert_eq!(minutes("${{ env.TEN }}"), Ok(10));
    for bad in ["${{ 0 }}", "${{ 1.5 }}", "${{ -1 }}", "${{ null }}", "${{ 'x' }}", "${{ '' }}", "${{ true }}"] {
        assert!(minutes(bad).is_err(), "{bad}");
    }
}

#[test]
fn environment_variables_keep_their_case() {
    let env = Object::case_sensitive().with("path", "a").with("PATH", "b");
    let contexts = Contexts::new().with("env", env);
    assert_eq!(
        expand("${{ env.path }}${{ env.PATH }}${{ env.Path }}", &contexts, Status::SUCCESS).as_deref(),
        Ok("ab")
    );
}

#[test]
fn debug_output_holds_no_secret() {
    let contexts = Contexts::new().with("secrets", Object::new().with("T", "hush"));
    assert!(!format!("{:?}", Evaluator::new(&contexts, Status::SUCCESS)).contains("hush"));
}

mod properties;

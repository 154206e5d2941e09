//! The inputs of workflows that a person or another workflow starts.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use workflow::{Contexts, InputError, Object, Value, Workflow, call_inputs, dispatch_inputs, parse};

fn workflow(on: &str) -> Workflow {
    parse("w.yml", &format!("on: {on}\njobs: {{a: {{runs-on: x}}}}\n"))
        .unwrap_or_else(|error| panic!("{}", error.place()))
}

const DISPATCH: &str = "{workflow_dispatch: {inputs: {level: {type: choice, options: [info, debug], default: info},
    dry: {type: boolean, default: true}, count: {type: number}, note: {}, where: {type: environment, required: true}}}}";

fn dispatch(given: &[(&str, &str)]) -> Result<String, InputError> {
    let given: BTreeMap<_, _> = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    dispatch_inputs(&workflow(DISPATCH), &given).map(|inputs| serde_json::to_string(&inputs).unwrap())
}

#[test]
fn what_a_person_gives() {
    assert_eq!(
        dispatch(&[("where", "prod")]).unwrap(),
        r#"{"level":"info","dry":true,"count":0,"note":"","where":"prod"}"#
    );
    assert_eq!(
        dispatch(&[("where", "prod"), ("LEVEL", "debug"), ("dry", "false"), ("count", "3"), ("note", "x")]).unwrap(),
        r#"{"level":"debug","dry":false,"count":3,"note":"x","where":"prod"}"#
    );
    let error = |given: &[(&str, &str)]| dispatch(given).unwrap_err().to_string();
    assert_eq!(error(&[]), "the input \"where\" is required");
    assert_eq!(error(&[("where", "")]), "the input \"where\" is required");
    assert_eq!(error(&[("where", "p"), ("levl", "x")]), "the workflow has no input \"levl\": did you mean \"level\"?");
    assert_eq!(error(&[("where", "p"), ("level", "x")]), "the input \"level\": `x` is not one of info, debug");
    assert_eq!(error(&[("where", "p"), ("dry", "yes")]), "the input \"dry\": expected true or false, found `yes`");
    assert_eq!(error(&[("where", "p"), ("count", "many")]), "the input \"count\": expected a number, found `many`");
}

#[test]
fn a_workflow_nobody_can_start() {
    let error = dispatch_inputs(&workflow("push"), &BTreeMap::new()).unwrap_err();
    assert_eq!(error.to_string(), "the workflow w.yml has no `workflow_dispatch` trigger");
    assert!(workflow("push").dispatch().is_none());
    assert_eq!(workflow("workflow_dispatch").dispatch().map(<[_]>::len), Some(0));
    assert!(call_inputs(&workflow("push"), &Object::new(), &Contexts::new()).is_err());
}

#[test]
fn what_a_caller_gives() {
    let called = workflow(
        "{workflow_call: {inputs: {n: {type: number, required: true}, on: {type: boolean}, s: {type: string, default: '${{ github.actor }}'}}}}",
    );
    let contexts = Contexts::new().with("github", Object::new().with("actor", "mona"));
    let given = Object::new().with("n", 2_i64);
    let inputs = call_inputs(&called, &given, &contexts).unwrap();
    assert_eq!(serde_json::to_string(&inputs).unwrap(), r#"{"n":2,"on":false,"s":"mona"}"#);
    assert!(call_inputs(&called, &Object::new(), &contexts).is_err());
    assert!(call_inputs(&called, &given.clone().with("s", Value::Array(vec![])), &contexts).is_err());
    assert!(call_inputs(&called, &given.with("on", "x"), &contexts).is_err());
}

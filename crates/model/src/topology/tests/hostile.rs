//! Nothing that anybody writes brings the reader down.

use super::*;
use proptest::prelude::*;

/// Values of every kind, right and wrong, in TOML.
fn value() -> impl Strategy<Value = String> {
    let fixed = [
        "0",
        "-1",
        "4294967296",
        "9223372036854775807",
        "nan",
        "inf",
        "1e308",
        "true",
        "[]",
        "[[]]",
        "{}",
        "[1, 2]",
        "\"\"",
        "\"none\"",
        "\"10 ms\"",
        "\"5%\"",
        "\"bs1\"",
        "\"ug1\"",
        "\"ug1.1\"",
        "{ min = 1 }",
        "{ count = 9 }",
        "1979-05-27",
        "[{}]",
        "[{ id = \"bs1\" }]",
    ];
    prop_oneof![
        prop::sample::select(fixed.to_vec()).prop_map(str::to_owned),
        "\"\\PC{0,6}\"",
        "[0-9a-z.]{1,6}"
    ]
}

fn key() -> impl Strategy<Value = String> {
    let mut known = Vec::new();
    let rendered =
        Topology { bs: vec![Bs::default()], users: vec![UserGroup::default()], ..Topology::default() };
    collect("", &toml::Value::try_from(&rendered).unwrap(), &mut known);
    known.extend(
        ["bs.0.count", "bs.0.ring", "bs.1.grid", "users.0.around", "link.override", "x.y"].map(str::to_owned),
    );
    prop_oneof![4 => prop::sample::select(known), 1 => "[a-z_.]{0,8}"]
}

fn collect(prefix: &str, value: &toml::Value, known: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => {
            table.iter().for_each(|(key, inner)| collect(&format!("{prefix}.{key}"), inner, known));
        }
        toml::Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, inner)| collect(&format!("{prefix}.{i}"), inner, known));
        }
        _ => {}
    }
    if !prefix.is_empty() {
        known.push(prefix[1..].to_owned());
    }
}

proptest! {
    #[test]
    fn whatever_is_set_either_plans_or_is_refused(
        sets in prop::collection::vec((key(), value()), 1..4)
    ) {
        let mut overrides = Overrides::default();
        sets.iter().for_each(|(key, value)| overrides.set(&format!("{key}={value}")));
        match parse("t.toml", SMALL.to_owned(), &overrides) {
            Ok(loaded) => {
                // An accepted network has a plan with finite rates, and is what its rendering says.
                let plan = crate::Plan::new(&loaded.topology);
                prop_assert!(plan.is_ok(), "{:?}", plan.err());
                let rates = plan.iter().flat_map(|plan| &plan.links).filter_map(|link| link.rate);
                prop_assert!(rates.into_iter().all(|rate| rate.get().is_finite() && rate.get() >= 0.0));
                let again = parse("t.toml", loaded.rendered.clone(), &Overrides::default());
                prop_assert_eq!(again.map(|again| again.hash).ok(), Some(loaded.hash));
            }
            Err(error) => {
                prop_assert!(!error.problems().is_empty());
                for problem in error.problems() {
                    let (start, length) = (problem.span.offset(), problem.span.len());
                    prop_assert!(problem.source.inner().get(start..start + length).is_some(), "{problem:?}");
                }
            }
        }
    }

    #[test]
    fn no_text_brings_the_reader_down(text in "(\\[\\[?(bs|users|radio|run)\\]\\]?\n|[a-z_]{1,6} ?= ?[^\n]{0,9}\n|\\PC{0,5}){0,8}") {
        if let Err(error) = read(&text) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}

//! From the merged tree of values to the types of a [`Topology`], collecting everything that does not fit.

use super::BS_MAX;
use super::Topology;
use super::load::Finding;
use super::nodes::Generator;
use super::spans::Part;
use crate::geometry::Position;
use crate::suggest::suggest;
use toml::{Table, Value};

/// How many problems are looked for before giving up: each costs another reading of the tree.
const FINDINGS_MAX: usize = 50;

/// Which entry of the file each BS came from, since one entry may stand for many.
#[derive(Debug, Default)]
pub(super) struct Places {
    entry_of_bs: Vec<usize>,
}

impl Places {
    /// The path in the file for a path in the topology.
    pub(super) fn in_file(&self, path: &str) -> String {
        let place =
            path.strip_prefix("bs[").and_then(|rest| rest.split_once(']')).and_then(|(index, rest)| {
                let entry = self.entry_of_bs.get(index.parse::<usize>().ok()?)?;
                Some(format!("bs[{entry}]{rest}"))
            });
        place.unwrap_or_else(|| path.to_owned())
    }
}

/// Reads the tree. What does not fit is reported, taken out and so left to its default, and the rest is read on.
pub(super) fn resolve(mut tree: Value) -> (Topology, Vec<Finding>, Places) {
    let mut findings = Vec::new();
    let places = expand_generators(&mut tree, &mut findings);
    while findings.len() < FINDINGS_MAX {
        let error = match serde_path_to_error::deserialize::<_, Topology>(tree.clone()) {
            Ok(mut topology) => {
                // Eq. 16 counts the chain's producers.
                topology.cost.producers = topology.chain.producers;
                return (topology, findings, places);
            }
            Err(error) => error,
        };
        let path = path_of(error.path());
        let finding = explain(&places.in_file(&path), error.inner().message());
        // One entry's slip is found again in each of the BSs it stands for.
        if !findings.contains(&finding) {
            findings.push(finding);
        }
        if !remove(&mut tree, &path) {
            break;
        }
    }
    (Topology::default(), findings, places)
}

/// A path as the file's map has it.
fn path_of(path: &serde_path_to_error::Path) -> String {
    let text = path.to_string();
    if text == "." { String::new() } else { text }
}

/// Takes out what stands at a path, or the list around it: a list with a gap would change what its entries mean.
fn remove(tree: &mut Value, path: &str) -> bool {
    let steps: Vec<&str> = path.split(['.', '[']).map(|step| step.trim_end_matches(']')).collect();
    let Some(last_key) = path.rfind('.').map_or(Some(0), Some).filter(|_| !path.is_empty()) else {
        return false;
    };
    // Indices behind the last key lie inside a list that goes as a whole.
    let kept = path[..last_key].split(['.', '[']).filter(|step| !step.is_empty()).count();
    let mut place = tree;
    for step in &steps[..kept] {
        let next = match place {
            Value::Table(table) => table.get_mut(*step),
            Value::Array(list) => step.parse::<usize>().ok().and_then(|i| list.get_mut(i)),
            _ => None,
        };
        match next {
            Some(inner) => place = inner,
            None => return false,
        }
    }
    let Some(key) = steps.get(kept) else { return false };
    match place {
        Value::Table(table) => table.remove(*key).is_some(),
        _ => false,
    }
}

/// A reader's message in the words of the file.
fn explain(path: &str, message: &str) -> Finding {
    let finding = |part, message, help| Finding { path: path.to_owned(), part, message, help };
    if let Some((word, mut known)) = unknown(message, "unknown field `") {
        if super::spans::parent(path).starts_with("bs[") {
            known.extend(Generator::KEYS);
        }
        let section = super::spans::parent(path);
        if path == "cost.producers" {
            let help = "it is `chain.producers` now, which the chain and the equations share".to_owned();
            return finding(Part::Key, "`cost` has no key `producers`".to_owned(), Some(help));
        }
        let place = if section.is_empty() { "a topology".to_owned() } else { format!("`{section}`") };
        return finding(Part::Key, format!("{place} has no key `{word}`"), Some(did_you_mean(word, &known)));
    }
    if let Some((word, known)) = unknown(message, "unknown variant `") {
        return finding(
            Part::Value,
            format!("\"{word}\" is no value of `{path}`"),
            Some(did_you_mean(word, &known)),
        );
    }
    let message = plain_words(message);
    let help = message.split_once("expected ").map(|(_, expected)| format!("expected {expected}"));
    finding(Part::Value, format!("`{path}`: {message}"), help)
}

/// The offending word and the known ones of serde's "unknown …, expected …".
fn unknown<'a>(message: &'a str, prefix: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let (word, rest) = message.strip_prefix(prefix)?.split_once('`')?;
    Some((word, rest.split('`').skip(1).step_by(2).collect()))
}

pub(super) fn did_you_mean(word: &str, known: &[&str]) -> String {
    let list = known.join(", ");
    match suggest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? known: {list}"),
        None => format!("known: {list}"),
    }
}

/// Rust's type names in words.
fn plain_words(message: &str) -> String {
    let words = [
        ("expected u8", "expected a whole number from 0 to 255"),
        ("expected u32", "expected a whole number from 0 to 4294967295"),
        ("expected u64", "expected a whole number, not negative"),
        ("expected f64", "expected a number"),
        ("expected a boolean", "expected true or false"),
        ("expected a string", "expected a text in quotes"),
        ("expected an array of length 2", "expected two numbers, like [0, 100]"),
        ("expected a sequence", "expected a list"),
        ("invalid type: map", "invalid type: table"),
        ("invalid type: sequence", "invalid type: list"),
        ("floating point", "number"),
    ];
    words.iter().fold(message.to_owned(), |text, (rust, plain)| text.replace(rust, plain))
}

/// Replaces each `[[bs]]` entry that stands for many by those many.
fn expand_generators(tree: &mut Value, findings: &mut Vec<Finding>) -> Places {
    let Some(Value::Array(entries)) = tree.get_mut("bs") else { return Places::default() };
    let mut places = Places::default();
    let mut expanded = Vec::new();
    for (i, entry) in std::mem::take(entries).into_iter().enumerate() {
        let all = match entry {
            Value::Table(table) => expand(table, i, expanded.len(), findings),
            other => vec![other],
        };
        places.entry_of_bs.extend(std::iter::repeat_n(i, all.len()));
        expanded.extend(all);
    }
    *entries = expanded;
    places
}

fn expand(mut table: Table, index: usize, so_far: usize, findings: &mut Vec<Finding>) -> Vec<Value> {
    let keys: Table =
        Generator::KEYS.iter().filter_map(|key| Some(((*key).to_owned(), table.remove(*key)?))).collect();
    if keys.is_empty() {
        return vec![Value::Table(table)];
    }
    let path = format!("bs[{index}]");
    let generator = match serde_path_to_error::deserialize::<_, Generator>(Value::Table(keys)) {
        Ok(generator) => generator,
        Err(error) => {
            findings.push(explain(&format!("{path}.{}", error.path()), error.inner().message()));
            return Vec::new();
        }
    };
    let count = generator.count as usize;
    let trouble = if count == 0 {
        Some(("count", "a generated entry needs a count of at least 1".to_owned()))
    } else if so_far + count > BS_MAX {
        Some(("count", format!("{} BSs, but there are addresses for at most {BS_MAX}", so_far + count)))
    } else if generator.ring.is_some() && generator.grid.is_some() {
        Some(("grid", "BSs stand on a ring or on a grid, not both".to_owned()))
    } else {
        None
    };
    if let Some((key, message)) = trouble {
        let help = format!("one of `ring` and `grid`, and `count` from 1 to {BS_MAX} over all entries");
        let path = format!("{path}.{key}");
        findings.push(Finding { path, part: Part::Value, message, help: Some(help) });
        return Vec::new();
    }
    place_all(&table, &generator)
}

fn place_all(table: &Table, generator: &Generator) -> Vec<Value> {
    // A centre that cannot be read stays in every entry and is reported there.
    let given = table.get("position_m").cloned();
    let centre = given.clone().map_or(Ok(Position::default()), Position::try_from_value);
    let positions = generator.positions(centre.unwrap_or_default());
    let prefix = table.get("id").and_then(Value::as_str).unwrap_or_default();
    let one = |(n, position): (usize, Position)| {
        let mut bs = table.clone();
        if table.contains_key("id") {
            bs.insert("id".to_owned(), Value::String(format!("{prefix}{}", n + 1)));
        }
        if centre.is_ok() {
            bs.insert("position_m".to_owned(), Value::Array(vec![position.x.into(), position.y.into()]));
        }
        Value::Table(bs)
    };
    positions.into_iter().enumerate().map(one).collect()
}

impl Position {
    fn try_from_value(value: Value) -> Result<Self, ()> {
        value.try_into().map_err(|_: toml::de::Error| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_out_a_value_or_the_list_around_it() {
        let text = "a = 1\n[[bs]]\nid = \"x\"\np = [1, 2]\n[t.u]\nv = 3";
        let tree: Value = Value::Table(text.parse().unwrap());
        let without = |path: &str| {
            let mut tree = tree.clone();
            remove(&mut tree, path).then_some(tree)
        };
        assert!(without("a").unwrap().get("a").is_none());
        assert!(without("t.u.v").unwrap()["t"]["u"].get("v").is_none());
        assert!(without("bs[0].p[1]").unwrap()["bs"][0].get("p").is_none());
        assert!(without("bs[0]").unwrap().get("bs").is_none());
        assert!(without("").is_none() && without("nobody").is_none() && without("t.u.w").is_none());
    }

    #[test]
    fn reads_serde_s_lists() {
        let message = "unknown field `bandwith`, expected one of `bandwidth`, `fading`";
        assert_eq!(unknown(message, "unknown field `"), Some(("bandwith", vec!["bandwidth", "fading"])));
        assert_eq!(
            did_you_mean("bandwith", &["bandwidth", "fading"]),
            "did you mean `bandwidth`? known: bandwidth, fading"
        );
    }
}

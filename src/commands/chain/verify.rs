//! `dtwn chain verify`: every signature, link, state and certificate of every node's chain, and the nodes beside each other.

use dtwn_chain::store::{Comparison, Store, Verified, VerifyReport, compare};
use serde::Serialize;

use super::find;
use crate::{
    chain::RunChain,
    cli::ChainVerifyArgs,
    commands::{print_json, print_line},
    error::{Error, Result},
    exit,
};

/// What was found of one node's chain.
#[derive(Debug, Serialize)]
struct NodeResult {
    node: String,
    /// `valid`, `invalid` (bad or damaged) or `unreadable`.
    result: &'static str,
    #[serde(flatten)]
    report: Option<VerifyReport>,
    problem: Option<String>,
}

/// The whole answer.
#[derive(Debug, Serialize)]
struct Answer {
    run: std::path::PathBuf,
    nodes: Vec<NodeResult>,
    #[serde(flatten)]
    comparison: Comparison,
}

/// Checks the chains of a run; exit code 100 when one is bad or two contradict each other.
///
/// # Errors
/// When the run cannot be read at all.
pub fn run(args: &ChainVerifyArgs) -> Result<u8> {
    let chain = find(args.run.as_deref())?;
    let mut verified = Verified::default();
    let mut nodes = Vec::new();
    let mut stores = Vec::new();
    for node in chain.nodes() {
        let (result, store) = check(&chain, node, &mut verified);
        nodes.push(result);
        stores.extend(store.map(|store| (node, store)));
    }
    // A chain that is not valid may still be compared: a fork should be seen for what it is.
    let comparison = compare(stores.iter().map(|(node, store)| (*node, store)))?;
    let answer = Answer { run: chain.run_dir.clone(), nodes, comparison };
    match args.json {
        true => print_json(&answer)?,
        false => print(&answer)?,
    }
    let any = |result| answer.nodes.iter().any(|node| node.result == result);
    Ok(match answer.comparison.conflicts {
        0 if !any("invalid") && !any("unreadable") => exit::OK,
        0 if !any("invalid") => exit::FAILURE,
        _ => exit::CHECK_FAILED,
    })
}

fn check(chain: &RunChain, node: &str, verified: &mut Verified) -> (NodeResult, Option<Store>) {
    let failed = |error: Error| {
        let result = match &error {
            Error::Chain(dtwn_chain::Error::Store { .. }) => "unreadable",
            _ => "invalid",
        };
        NodeResult { node: node.to_owned(), result, report: None, problem: Some(error.to_string()) }
    };
    let store = match chain.inspect(node) {
        Ok(store) => store,
        Err(error) => return (failed(error), None),
    };
    let result = match store.verify_beside(verified) {
        Ok(report) => {
            NodeResult { node: node.to_owned(), result: "valid", report: Some(report), problem: None }
        }
        Err(error) => failed(error.into()),
    };
    (result, Some(store))
}

fn print(answer: &Answer) -> Result<()> {
    print_line(&format!(
        "{:<8} {:>7} {:>6} {:>9} {:>12} {:>10} {:<12} {}",
        "NODE", "HEIGHT", "EPOCH", "TX", "CERTIFICATES", "SIGNATURES", "HEAD", "RESULT"
    ))?;
    for node in &answer.nodes {
        match &node.report {
            Some(report) => print_line(&format!(
                "{:<8} {:>7} {:>6} {:>9} {:>12} {:>10} {:<12} {}",
                node.node,
                report.height,
                report.epoch,
                report.transactions,
                report.certificates,
                report.signatures,
                report.head,
                match report.uncovered {
                    0 => "valid".to_owned(),
                    count => format!("valid; its last {count} blocks need another node's certificate"),
                }
            ))?,
            None => print_line(&format!(
                "{:<8} {}: {}",
                node.node,
                node.result,
                node.problem.as_deref().unwrap_or("?")
            ))?,
        }
    }
    for conflict in &answer.comparison.first_conflicts {
        let held: Vec<_> = conflict.blocks.iter().map(|(node, digest)| format!("{node} {digest}")).collect();
        print_line(&format!("CONFLICT at height {}: {}", conflict.height, held.join(", ")))?;
    }
    print_line(&format!(
        "{} conflicts; finalized by all: {}, by any: {}",
        answer.comparison.conflicts, answer.comparison.common_height, answer.comparison.finalized_height
    ))
}

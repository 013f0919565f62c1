//! `dtwn chain repair`: a new store in the place of a damaged one.

use std::sync::Arc;

use dtwn_chain::{
    state::State,
    store::{Store, Verified},
    types::Epoch,
};

use super::find;
use crate::{
    chain::RunChain,
    cli::ChainRepairArgs,
    commands::print_line,
    error::{Error, Result},
    exit,
};

/// Sets a node's damaged store aside and makes one from which it follows the others and, later, votes again.
///
/// # Errors
/// When the store is not damaged, in use, or too few of the others can be read to know when the node may vote.
pub fn run(args: &ChainRepairArgs) -> Result<u8> {
    let chain = find(Some(&args.run))?;
    let node = chain.node(&args.node)?;
    let problem = problem_of(&chain, &node);
    if problem.is_none() && !args.force {
        return Err(Error::Refused(format!(
            "the chain store of {node} is not damaged, and a node that forgets its votes cannot vote for two epochs; \
             replace it all the same with --force"
        )));
    }
    let vote_from = latest_epoch(&chain, &node)?.saturating_add(2);
    let aside = Store::repair(chain.path(&node), Arc::clone(&chain.registry), vote_from)?;
    if let Some(problem) = problem {
        eprintln!("{problem}");
    }
    print_line(&format!("{node}: the old store is kept as {}", aside.display()))?;
    print_line(&format!(
        "{node}: a new one fetches the chain from the others, and votes from epoch {vote_from} on"
    ))?;
    print_line(&format!("start the node with `dtwn restart {node}`, unless it is started by itself"))?;
    Ok(exit::OK)
}

/// What is wrong with a node's store.
fn problem_of(chain: &RunChain, node: &str) -> Option<String> {
    let checked = chain.inspect(node).and_then(|store| Ok(store.verify_beside(&mut Verified::default())?));
    checked.err().map(|error| error.to_string())
}

/// The latest epoch that any node other than `node` is known to have reached.
///
/// The lost store may hold votes of the epoch after it: whoever is in epoch e + 1 knows that e is final, for which a quorum of e's
/// producers voted, all of them in epoch e by then. As long as no more stores are out of reach than producers may be faulty,
/// one of these voters is among those that can be read.
fn latest_epoch(chain: &RunChain, node: &str) -> Result<Epoch> {
    let mut latest = None;
    let mut unreadable = Vec::new();
    for other in chain.nodes().filter(|other| *other != node) {
        match chain.inspect(other).and_then(|store| Ok(store.epoch()?)) {
            Ok(epoch) => latest = latest.max(Some(epoch)),
            Err(_) if !chain.stations.iter().any(|station| station == other) => {}
            Err(error) => unreadable.push(format!("{other} ({error})")),
        }
    }
    let most = State::genesis(&chain.registry).producers.faults();
    match latest {
        Some(epoch) if unreadable.len() <= most => Ok(epoch),
        _ => Err(Error::Refused(format!(
            "when {node} may vote again depends on the others, of whom at most {most} may be unreadable: {}",
            unreadable.join(", ")
        ))),
    }
}

//! `dtwn chain`: the chains of a run, read from the nodes' stores, whether the run is over or not.

mod log;
mod repair;
mod show;
mod verify;

use std::path::Path;

use dtwn_chain::{
    block::SharedBlock,
    store::Store,
    vote::{Certificate, SharedCertificate},
};
use indexmap::IndexMap;
use serde_json::{Value, json};

use crate::{
    chain::RunChain,
    cli::ChainCommand,
    client::Client,
    error::{Error, Result},
};

/// Looks at the chain of a run, checks it, or repairs a node's.
///
/// # Errors
/// When there is no such run or session, it keeps no chain, or a store cannot be read.
pub fn run(command: &ChainCommand) -> Result<u8> {
    match command {
        ChainCommand::Log(args) => log::run(args),
        ChainCommand::Show(args) => show::run(args),
        ChainCommand::Verify(args) => verify::run(args),
        ChainCommand::Repair(args) => repair::run(args),
    }
}

/// The chain of a run directory, or of a session by its name or because it is the only one.
fn find(run_or_session: Option<&str>) -> Result<RunChain> {
    match run_or_session.map(Path::new).filter(|path| path.is_dir()) {
        Some(run_dir) => RunChain::of_run(run_dir),
        None => RunChain::of_run(&Client::connect(run_or_session, true)?.run_dir),
    }
}

/// The store of the node asked for, or else the one that has come furthest.
fn choose(chain: &RunChain, node: Option<&str>) -> Result<(String, Store)> {
    if let Some(name) = node {
        let node = chain.node(name)?;
        let store = chain.inspect(&node)?;
        return Ok((node, store));
    }
    let mut furthest: Option<(String, Store)> = None;
    let mut unreadable = None;
    for node in chain.nodes() {
        match chain.inspect(node) {
            Ok(store) if furthest.as_ref().is_none_or(|(_, held)| store.height() > held.height()) => {
                furthest = Some((node.to_owned(), store));
            }
            Ok(_) => {}
            Err(error) => unreadable = Some(error),
        }
    }
    match (furthest, unreadable) {
        (Some(found), _) => Ok(found),
        (None, Some(error)) => Err(error),
        (None, None) => Err(Error::Refused(format!("no node keeps a chain in {}", chain.run_dir.display()))),
    }
}

/// How many transactions of each kind a block has, in the order of their first.
fn kinds(block: &SharedBlock) -> IndexMap<&'static str, usize> {
    let mut kinds = IndexMap::new();
    for transaction in block.transactions() {
        *kinds.entry(transaction.payload.kind()).or_default() += 1;
    }
    kinds
}

/// The names of those who signed a certificate.
fn signers(chain: &RunChain, certificate: &Certificate) -> Vec<String> {
    certificate.signatures.iter().map(|(signer, _)| chain.name_of(*signer)).collect()
}

/// A block as programs read it, without its transactions.
fn describe(chain: &RunChain, block: &SharedBlock, certificate: Option<&SharedCertificate>) -> Value {
    let header = block.header();
    json!({
        "height": header.height,
        "epoch": header.epoch,
        "view": header.view,
        "leader": chain.name_of(header.leader),
        "digest": block.digest().to_hex(),
        "parent": header.parent.to_hex(),
        "transactions": block.transactions().len(),
        "kinds": kinds(block),
        "bytes": block.body_bytes(),
        // A block without a certificate of its own is final by that of a later one.
        "certificate": certificate.map(|certificate| {
            let (epoch, view) = certificate.statement.round();
            json!({"epoch": epoch, "view": view, "signers": signers(chain, certificate)})
        }),
    })
}

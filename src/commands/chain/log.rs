//! `dtwn chain log`: blocks, one a line.

use super::{choose, describe, find, kinds, signers};
use crate::{
    chain::RunChain,
    cli::ChainLogArgs,
    commands::{print_json, print_line},
    error::Result,
    exit,
};
use dtwn_chain::{block::SharedBlock, vote::SharedCertificate};
use serde_json::json;

/// Lists the last blocks of a node's chain.
///
/// # Errors
/// When there is no such chain, or it cannot be read.
pub fn run(args: &ChainLogArgs) -> Result<u8> {
    let chain = find(args.run.as_deref())?;
    let (node, store) = choose(&chain, args.node.as_deref())?;
    let height = store.height();
    let view = store.view()?;
    let blocks = ((height.saturating_sub(args.last) + 1)..=height).map(|height| view.committed(height));
    if args.json {
        let blocks: Vec<_> = blocks
            .filter_map(|found| found.transpose())
            .map(|found| found.map(|(block, certificate)| describe(&chain, &block, certificate.as_ref())))
            .collect::<std::result::Result<_, _>>()?;
        print_json(&json!({"node": node, "height": height, "blocks": blocks}))?;
        return Ok(exit::OK);
    }
    if height == 0 {
        eprintln!("{node} has finalized no block");
        return Ok(exit::OK);
    }
    print_line(&format!(
        "{:>7} {:>5} {:>6} {:<8} {:>6} {:>9} {:<12}  {:<24} {}",
        "HEIGHT", "EPOCH", "VIEW", "LEADER", "TX", "BYTES", "DIGEST", "FINALIZED BY", "KINDS"
    ))?;
    for found in blocks {
        if let Some((block, certificate)) = found? {
            line(&chain, &block, certificate.as_ref())?;
        }
    }
    eprintln!("{} of {height} blocks, as {node} keeps them", args.last.min(height));
    Ok(exit::OK)
}

fn line(chain: &RunChain, block: &SharedBlock, certificate: Option<&SharedCertificate>) -> Result<()> {
    let header = block.header();
    let kinds: Vec<_> = kinds(block).into_iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    print_line(
        format!(
            "{:>7} {:>5} {:>6} {:<8} {:>6} {:>9} {:<12}  {:<24} {}",
            header.height,
            header.epoch,
            header.view,
            chain.name_of(header.leader),
            block.transactions().len(),
            block.body_bytes(),
            block.digest(),
            certificate.map_or("a later block".to_owned(), |held| signers(chain, held).join(" ")),
            kinds.join(", ")
        )
        .trim_end(),
    )
}

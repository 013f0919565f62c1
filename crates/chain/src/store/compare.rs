//! Comparing the finalized chains of several stores.

use serde::Serialize;

use super::Store;
use crate::error::Result;
use crate::types::{Digest, Height};

/// Conflicts listed at most; all are counted.
const LISTED_MAX: usize = 10;

/// What several stores of one chain say together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// The height that all stores have finalized.
    pub common_height: Height,
    /// The height that the most advanced store has finalized.
    pub finalized_height: Height,
    /// Heights at which two stores hold different finalized blocks.
    pub conflicts: u64,
    /// The first of them.
    pub first_conflicts: Vec<Conflict>,
}

/// Different finalized blocks at one height.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// The height.
    pub height: Height,
    /// Which node holds which block.
    pub blocks: Vec<(String, Digest)>,
}

/// Compares the finalized chains of nodes, height by height.
///
/// What is compared is the index of blocks that each node wrote with them; [`Store::verify`] checks that they fit.
///
/// # Errors
/// [`crate::Error::Store`] or [`crate::Error::Damaged`] when a store cannot be read.
pub fn compare<'a>(stores: impl IntoIterator<Item = (&'a str, &'a Store)>) -> Result<Comparison> {
    let mut chains = Vec::new();
    for (node, store) in stores {
        chains.push((node, store.view()?.digests()?));
    }
    let heights = |(_, chain): &(&str, Vec<Option<Digest>>)| chain.len() as Height;
    let mut comparison = Comparison {
        common_height: chains.iter().map(heights).min().unwrap_or(0),
        finalized_height: chains.iter().map(heights).max().unwrap_or(0),
        ..Comparison::default()
    };
    for height in 1..=comparison.finalized_height {
        let index = usize::try_from(height - 1).unwrap_or(usize::MAX);
        let held = chains.iter().filter_map(|(node, chain)| Some((*node, (*chain.get(index)?)?)));
        let mut digests = held.clone().map(|(_, digest)| digest);
        let first = digests.next();
        if digests.any(|digest| Some(digest) != first) {
            comparison.conflicts += 1;
            if comparison.first_conflicts.len() < LISTED_MAX {
                let blocks = held.map(|(node, digest)| (node.to_owned(), digest)).collect();
                comparison.first_conflicts.push(Conflict { height, blocks });
            }
        }
    }
    Ok(comparison)
}

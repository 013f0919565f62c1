//! Checkpoints: global models, and what BSs carry over from one round to the next, as safetensors files.
//!
//! ```text
//! state/mbs/checkpoints/round-000007.safetensors    the global model that round 7 made
//!     a tensor each of the model, by the learner's names (`conv1.weight` …), f32
//!     dtwn.residual   what the model's format rounded off, f32, only where `format` is f16 or int8
//! state/bs2/checkpoints/round-000007.safetensors    what bs2 rounded off in round 7
//!     dtwn.residual
//! ```
//!
//! Metadata, all text: `dtwn.checkpoint` (the version of this layout), `dtwn.kind` (`global` or `residual`), `dtwn.round`,
//! `dtwn.fingerprint` (of the topology), `dtwn.seed`, `dtwn.dataset`, `dtwn.digest` (BLAKE3 of the parameters as they travel,
//! little-endian f32 in the order of the tensors' names), `dtwn.residual_digest` (the same of what was rounded off), `dtwn.version` (of
//! the program).
//!
//! Optimisers begin anew for every twin in every round, so there is no state of theirs to keep.

mod file;
mod shelf;

#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
};

use dtwn_model::{Plan, TopologyError};

use super::work::digest;
use file::{Raw, bytes_of, pack, split, write_whole};
pub use shelf::Shelf;
use shelf::rounds_in;

/// The tensor with what was rounded off.
const RESIDUAL: &str = "dtwn.residual";
/// Under which a file names the digests of its parameters and of its [`RESIDUAL`].
const DIGEST: &str = "dtwn.digest";
const RESIDUAL_DIGEST: &str = "dtwn.residual_digest";
/// The folder within a node's state.
pub const FOLDER: &str = "checkpoints";

/// A tensor of a model: its name in a `state_dict` of PyTorch, and its shape.
pub type TensorLayout = (String, Vec<usize>);

/// Why a checkpoint cannot be written or used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be written; those written before are as they were.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not a safetensors file, or damaged.
    #[error("{} is no whole safetensors file: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In the library's words.
        why: String,
    },
    /// It was written by something else, or for something else.
    #[error("{}: its {what} is {found}, here it is {expected}", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// In the file.
        found: String,
        /// Here.
        expected: String,
    },
    /// Numbers that are not those that their digest was taken of.
    #[error("{} is damaged: its numbers have another digest than its metadata say", path.display())]
    Digest {
        /// The file.
        path: PathBuf,
    },
    /// A NaN or an infinity.
    #[error("{}: {tensor} holds a number that is not finite", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// Where in it.
        tensor: String,
    },
}

/// What a checkpoint belongs to. Only one that belongs to the same can be gone on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Of the topology, without what does not change what is learned.
    pub fingerprint: String,
    /// Seed of the run.
    pub seed: u64,
    /// `synthetic` or `cifar-10`.
    pub dataset: String,
}

impl Identity {
    /// Of what a network learns.
    ///
    /// # Errors
    /// When its topology cannot be rendered.
    pub fn of(plan: &Plan) -> Result<Self, TopologyError> {
        let topology = plan.topology();
        let dataset = if topology.learning.data.is_some() { "cifar-10" } else { "synthetic" };
        Ok(Self { fingerprint: topology.fingerprint()?, seed: topology.run.seed, dataset: dataset.into() })
    }
}

/// A global model with all that is needed to go on from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Global {
    /// The round that made it; 0 for the first.
    pub round: u64,
    /// In the order of the tensors' names.
    pub parameters: Vec<f32>,
    /// What the MBS rounded off so far; empty with `format = "f32"`.
    pub residual: Vec<f32>,
}

impl Global {
    /// BLAKE3 of the parameters, as in `global_model` events.
    #[must_use]
    pub fn digest(&self) -> blake3::Hash {
        digest(&self.parameters)
    }

    /// What its file names, key and digest.
    fn digests(&self) -> Vec<(&'static str, blake3::Hash)> {
        let residual = (!self.residual.is_empty()).then(|| (RESIDUAL_DIGEST, digest(&self.residual)));
        [(DIGEST, self.digest())].into_iter().chain(residual).collect()
    }
}

/// Writes parameters alone, by the learner's names, for use elsewhere: plain safetensors with some metadata. `layout` are the tensors
/// that the model must have, sorted by name.
///
/// # Errors
/// [`CheckpointError`] when the checkpoint is no good or the file cannot be written.
pub fn export(checkpoint: &Path, out: &Path, layout: &[TensorLayout]) -> Result<Exported, CheckpointError> {
    let file = Raw::read(checkpoint)?;
    let (global, digest) = file.global(layout)?;
    let fail = |source| CheckpointError::Write { path: out.into(), source };
    let bytes = bytes_of(&global.parameters);
    let tensors = split(layout, &bytes).map_err(fail)?;
    let wanted = ["dtwn.round", "dtwn.seed", "dtwn.dataset", "dtwn.digest", "dtwn.version"];
    let metadata =
        wanted.into_iter().filter_map(|key| Some((key.to_owned(), file.get(key)?.to_owned()))).collect();
    let bytes = pack(tensors, metadata).map_err(fail)?;
    write_whole(out, &bytes).map_err(fail)?;
    Ok(Exported {
        round: global.round,
        dataset: file.get("dtwn.dataset").unwrap_or_default().to_owned(),
        digest,
        tensors: layout.to_vec(),
        bytes: bytes.len(),
    })
}

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Exported {
    /// The round that made the model.
    pub round: u64,
    /// What it has learned from.
    pub dataset: String,
    /// BLAKE3 of its parameters, in hexadecimal.
    pub digest: String,
    /// Its tensors, sorted by name.
    pub tensors: Vec<TensorLayout>,
    /// Length of the file.
    pub bytes: usize,
}

/// The checkpoints of a node, by round, oldest first.
#[must_use]
pub fn of_node(state_dir: &Path) -> Vec<(u64, PathBuf)> {
    rounds_in(&state_dir.join(FOLDER))
}

/// Checks a global model: whole, finite, of a network, and with the tensors of `layout`, sorted by name. Its round, and its digest in
/// hexadecimal.
///
/// # Errors
/// [`CheckpointError`].
pub fn check(
    path: &Path,
    identity: &Identity,
    layout: &[TensorLayout],
) -> Result<(u64, String), CheckpointError> {
    let file = Raw::read(path)?;
    file.belongs_to(identity)?;
    let (global, digest) = file.global(layout)?;
    Ok((global.round, digest))
}

//! The checkpoints that a node keeps in its folder.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use super::{
    CheckpointError, FOLDER, Global, Identity, RESIDUAL, RESIDUAL_DIGEST, TensorLayout, digest,
    file::{Part, Raw, VERSION, bytes_of, pack, split, write_whole},
};

/// Newest checkpoints that are kept.
const KEPT: usize = 3;

/// The checkpoints of one node.
#[derive(Debug, Clone)]
pub struct Shelf {
    dir: PathBuf,
    identity: Identity,
    layout: Vec<TensorLayout>,
}

impl Shelf {
    /// In the folder where a node keeps its state. `layout` are the model's tensors, sorted by name.
    #[must_use]
    pub fn new(state_dir: &Path, identity: Identity, layout: Vec<TensorLayout>) -> Self {
        Self { dir: state_dir.join(FOLDER), identity, layout }
    }

    /// Writes a global model: whole or not at all, and safe from a power cut when this returns. Older ones beyond the newest few go.
    ///
    /// # Errors
    /// [`CheckpointError::Write`]; the checkpoints so far are as they were.
    pub fn save(&self, global: &Global) -> Result<(), CheckpointError> {
        let bytes = bytes_of(&global.parameters);
        let residual = bytes_of(&global.residual);
        let mut tensors = split(&self.layout, &bytes)
            .map_err(|source| CheckpointError::Write { path: self.dir.clone(), source })?;
        if !global.residual.is_empty() {
            tensors.push((RESIDUAL, vec![global.residual.len()], &residual));
        }
        self.write(global.round, "global", tensors, &global.digests())
    }

    /// Writes what a BS rounded off in a round, as [`save`](Self::save).
    ///
    /// # Errors
    /// [`CheckpointError::Write`].
    pub fn save_residual(&self, round: u64, residual: &[f32]) -> Result<(), CheckpointError> {
        let bytes = bytes_of(residual);
        let sealed = (RESIDUAL_DIGEST, digest(residual));
        self.write(round, "residual", vec![(RESIDUAL, vec![residual.len()], &bytes)], &[sealed])
    }

    /// The newest global model that is whole, and why newer ones are not; `None` when there is none.
    ///
    /// # Errors
    /// [`CheckpointError::Other`] when the newest whole one belongs to something else.
    pub fn newest(&self) -> Result<(Option<Global>, Vec<CheckpointError>), CheckpointError> {
        let mut damaged = Vec::new();
        for (_, path) in rounds_in(&self.dir).into_iter().rev() {
            match self.read(&path) {
                Ok(global) => return Ok((Some(global), damaged)),
                Err(other @ CheckpointError::Other { .. }) => return Err(other),
                Err(error) => damaged.push(error),
            }
        }
        Ok((None, damaged))
    }

    /// Reads and checks one global model.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn read(&self, path: &Path) -> Result<Global, CheckpointError> {
        let file = Raw::read(path)?;
        file.belongs_to(&self.identity)?;
        file.global(&self.layout).map(|(global, _)| global)
    }

    /// What a BS rounded off up to and with `round`, where that is known.
    ///
    /// # Errors
    /// [`CheckpointError`] for a file that cannot be used.
    pub fn residual(&self, round: u64) -> Result<Option<Vec<f32>>, CheckpointError> {
        let Some((_, path)) = rounds_in(&self.dir).into_iter().find(|(of, _)| *of == round) else {
            return Ok(None);
        };
        let file = Raw::read(&path)?;
        file.require("kind", "dtwn.kind", "residual")?;
        file.require("topology", "dtwn.fingerprint", &self.identity.fingerprint)?;
        file.residual(&self.layout)
    }

    fn write(
        &self,
        round: u64,
        kind: &str,
        tensors: Vec<Part<'_, '_>>,
        digests: &[(&str, blake3::Hash)],
    ) -> Result<(), CheckpointError> {
        let path = self.dir.join(file_name(round));
        let fail = |source| CheckpointError::Write { path: path.clone(), source };
        let mut metadata = HashMap::from([
            ("dtwn.checkpoint".to_owned(), VERSION.to_owned()),
            ("dtwn.kind".to_owned(), kind.to_owned()),
            ("dtwn.round".to_owned(), round.to_string()),
            ("dtwn.fingerprint".to_owned(), self.identity.fingerprint.clone()),
            ("dtwn.seed".to_owned(), self.identity.seed.to_string()),
            ("dtwn.dataset".to_owned(), self.identity.dataset.clone()),
            ("dtwn.version".to_owned(), dtwn_proto::VERSION.to_owned()),
        ]);
        metadata.extend(digests.iter().map(|(key, digest)| ((*key).to_owned(), digest.to_hex().to_string())));
        let bytes = pack(tensors, metadata).map_err(fail)?;
        fs::create_dir_all(&self.dir).map_err(fail)?;
        write_whole(&path, &bytes).map_err(fail)?;
        let rounds = rounds_in(&self.dir);
        for (_, old) in rounds.iter().take(rounds.len().saturating_sub(KEPT)) {
            // One that stays is a few megabytes too many, and no reason to complain.
            let _ = fs::remove_file(old);
        }
        Ok(())
    }
}

fn file_name(round: u64) -> String {
    format!("round-{round:06}.safetensors")
}

pub(super) fn rounds_in(dir: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let round = |path: &Path| -> Option<u64> {
        let name = path.file_name()?.to_str()?;
        name.strip_prefix("round-")?.strip_suffix(".safetensors")?.parse().ok()
    };
    let mut found: Vec<(u64, PathBuf)> = entries.filter_map(|path| Some((round(&path)?, path))).collect();
    found.sort();
    found
}

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
//! little-endian f32 in the order of the tensors' names), `dtwn.version` (of the program).
//!
//! Optimisers begin anew for every twin in every round, so there is no state of theirs to keep.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use dtwn_model::{Plan, TopologyError};
use safetensors::{
    SafeTensors,
    tensor::{Dtype, SafeTensorError, TensorView, serialize},
};

use super::work::digest;

/// Version of the layout.
const VERSION: &str = "1";
/// The largest file that is read: a hundred times the paper's model.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Newest checkpoints that are kept.
const KEPT: usize = 3;
/// The tensor with what was rounded off.
const RESIDUAL: &str = "dtwn.residual";
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
    /// Parameters that are not those that its digest was taken of.
    #[error("{} is damaged: its parameters have another digest than its metadata say", path.display())]
    Digest {
        /// The file.
        path: PathBuf,
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
}

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
        let mut tensors = self.split(&bytes)?;
        if !global.residual.is_empty() {
            tensors.push((RESIDUAL, vec![global.residual.len()], &residual));
        }
        let digest = global.digest().to_hex().to_string();
        self.write(global.round, "global", tensors, Some(digest))
    }

    /// Writes what a BS rounded off in a round, as [`save`](Self::save).
    ///
    /// # Errors
    /// [`CheckpointError::Write`].
    pub fn save_residual(&self, round: u64, residual: &[f32]) -> Result<(), CheckpointError> {
        let bytes = bytes_of(residual);
        self.write(round, "residual", vec![(RESIDUAL, vec![residual.len()], &bytes)], None)
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
        file.expect("kind", "dtwn.kind", "global")?;
        file.belongs_to(&self.identity)?;
        let other = |found: String, expected: &TensorLayout| CheckpointError::Other {
            path: path.into(),
            what: "model",
            found,
            expected: format!("one with {} of shape {:?}", expected.0, expected.1),
        };
        let mut parameters = Vec::new();
        for expected in &self.layout {
            let (shape, values) =
                file.tensor(&expected.0)?.ok_or_else(|| other("one without it".into(), expected))?;
            if shape != expected.1 {
                return Err(other(format!("one where it has shape {shape:?}"), expected));
            }
            parameters.extend(values);
        }
        let residual = file.tensor(RESIDUAL)?.map(|(_, values)| values).unwrap_or_default();
        let finite = parameters.iter().chain(&residual).all(|value| value.is_finite());
        let fits = residual.is_empty() || residual.len() == parameters.len();
        if !finite || !fits || file.get("dtwn.digest") != Some(digest(&parameters).to_hex().as_str()) {
            return Err(CheckpointError::Digest { path: path.into() });
        }
        Ok(Global { round: file.round()?, parameters, residual })
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
        file.expect("kind", "dtwn.kind", "residual")?;
        file.expect("topology", "dtwn.fingerprint", &self.identity.fingerprint)?;
        let residual = file.tensor(RESIDUAL)?.map(|(_, values)| values);
        match residual.as_ref().is_none_or(|values| self.can_be_added(values)) {
            true => Ok(residual),
            false => {
                let why = "it holds numbers that cannot be added to a model of ours".into();
                Err(CheckpointError::Damaged { path, why })
            }
        }
    }

    /// Whether this is what can be rounded off a model of ours: a finite number for each parameter.
    fn can_be_added(&self, residual: &[f32]) -> bool {
        let parameters: usize = self.layout.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        residual.len() == parameters && residual.iter().all(|value| value.is_finite())
    }

    /// The model's tensors, as parts of `bytes`.
    fn split<'a>(&self, bytes: &'a [u8]) -> Result<Vec<Part<'_, 'a>>, CheckpointError> {
        let mut rest = bytes;
        let mut parts = Vec::with_capacity(self.layout.len() + 1);
        for (name, shape) in &self.layout {
            let length = 4 * shape.iter().product::<usize>();
            let Some((part, after)) = rest.split_at_checked(length) else { break };
            parts.push((name.as_str(), shape.clone(), part));
            rest = after;
        }
        match rest.is_empty() && parts.len() == self.layout.len() {
            true => Ok(parts),
            false => Err(CheckpointError::Write {
                path: self.dir.clone(),
                source: io::Error::other("a model of another number of parameters"),
            }),
        }
    }

    fn write(
        &self,
        round: u64,
        kind: &str,
        tensors: Vec<Part<'_, '_>>,
        digest: Option<String>,
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
        metadata.extend(digest.map(|digest| ("dtwn.digest".to_owned(), digest)));
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

/// A tensor to write: name, shape, bytes.
type Part<'n, 'b> = (&'n str, Vec<usize>, &'b [u8]);

/// Writes parameters alone, by the learner's names, for use elsewhere: plain safetensors with some metadata.
///
/// # Errors
/// [`CheckpointError`] when the checkpoint is no good or the file cannot be written.
pub fn export(checkpoint: &Path, out: &Path) -> Result<Exported, CheckpointError> {
    let file = Raw::read(checkpoint)?;
    file.expect("kind", "dtwn.kind", "global")?;
    let (kept, sealed) = file.model()?;
    let bytes: Vec<Vec<u8>> = kept.iter().map(|(_, _, values)| bytes_of(values)).collect();
    let tensors: Vec<Part<'_, '_>> = kept
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| (name.as_str(), shape.clone(), bytes.as_slice()))
        .collect();
    let wanted = ["dtwn.round", "dtwn.seed", "dtwn.dataset", "dtwn.digest", "dtwn.version"];
    let metadata =
        wanted.into_iter().filter_map(|key| Some((key.to_owned(), file.get(key)?.to_owned()))).collect();
    let fail = |source| CheckpointError::Write { path: out.into(), source };
    let bytes = pack(tensors, metadata).map_err(fail)?;
    write_whole(out, &bytes).map_err(fail)?;
    Ok(Exported {
        round: file.round()?,
        dataset: file.get("dtwn.dataset").unwrap_or_default().to_owned(),
        digest: sealed,
        tensors: kept.into_iter().map(|(name, shape, _)| (name, shape)).collect(),
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

/// Checks a global model without knowing the shapes of its tensors: whole, and of a network. Its round, and its digest in
/// hexadecimal.
///
/// # Errors
/// [`CheckpointError`].
pub fn check(path: &Path, identity: &Identity) -> Result<(u64, String), CheckpointError> {
    let file = Raw::read(path)?;
    file.expect("kind", "dtwn.kind", "global")?;
    file.belongs_to(identity)?;
    let (_, digest) = file.model()?;
    Ok((file.round()?, digest))
}

fn file_name(round: u64) -> String {
    format!("round-{round:06}.safetensors")
}

fn rounds_in(dir: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let round = |path: &Path| -> Option<u64> {
        let name = path.file_name()?.to_str()?;
        name.strip_prefix("round-")?.strip_suffix(".safetensors")?.parse().ok()
    };
    let mut found: Vec<(u64, PathBuf)> = entries.filter_map(|path| Some((round(&path)?, path))).collect();
    found.sort();
    found
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn pack(tensors: Vec<Part<'_, '_>>, metadata: HashMap<String, String>) -> io::Result<Vec<u8>> {
    let broken = |error: SafeTensorError| io::Error::other(format!("{error:?}"));
    let mut views = Vec::with_capacity(tensors.len());
    for (name, shape, bytes) in tensors {
        views.push((name, TensorView::new(Dtype::F32, shape, bytes).map_err(broken)?));
    }
    serialize(views, &Some(metadata)).map_err(broken)
}

/// Writes a file beside its place, syncs it and moves it there: whatever happens, the place holds the old file or the new one.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let written = File::create(&partial).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    if let Err(error) = written.and_then(|()| fs::rename(&partial, path)) {
        let _ = fs::remove_file(&partial);
        return Err(error);
    }
    // The name is safe once the folder is.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Shape and values of a tensor.
type Shaped = (Vec<usize>, Vec<f32>);

/// A tensor that was read: name, shape, values.
type Named = (String, Vec<usize>, Vec<f32>);

/// A file that was read, with its metadata.
struct Raw {
    path: PathBuf,
    bytes: Vec<u8>,
    metadata: HashMap<String, String>,
}

impl Raw {
    fn read(path: &Path) -> Result<Self, CheckpointError> {
        let fail = |source| CheckpointError::Read { path: path.into(), source };
        if fs::metadata(path).map_err(fail)?.len() > FILE_BYTES_MAX {
            return Err(fail(io::Error::other("it is larger than any model of ours")));
        }
        let bytes = fs::read(path).map_err(fail)?;
        let damaged = |error: SafeTensorError| CheckpointError::Damaged {
            path: path.into(),
            why: format!("{error:?}"),
        };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(damaged)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let file = Self { path: path.into(), bytes, metadata };
        file.expect("version of checkpoints", "dtwn.checkpoint", VERSION)?;
        Ok(file)
    }

    fn tensors(&self) -> Result<SafeTensors<'_>, CheckpointError> {
        SafeTensors::deserialize(&self.bytes)
            .map_err(|error| CheckpointError::Damaged { path: self.path.clone(), why: format!("{error:?}") })
    }

    fn names(&self) -> Result<Vec<String>, CheckpointError> {
        Ok(self.tensors()?.names().into_iter().cloned().collect())
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    fn expect(&self, what: &'static str, key: &str, expected: &str) -> Result<(), CheckpointError> {
        let found = self.get(key).unwrap_or("not named");
        if found == expected {
            return Ok(());
        }
        let (found, expected) = (found.to_owned(), expected.to_owned());
        Err(CheckpointError::Other { path: self.path.clone(), what, found, expected })
    }

    /// The seed comes first: it is part of the topology too, and says more.
    fn belongs_to(&self, identity: &Identity) -> Result<(), CheckpointError> {
        self.expect("seed", "dtwn.seed", &identity.seed.to_string())?;
        self.expect("data set", "dtwn.dataset", &identity.dataset)?;
        self.expect("topology", "dtwn.fingerprint", &identity.fingerprint)
    }

    /// The model's tensors sorted by name, and its digest in hexadecimal, which was found right.
    fn model(&self) -> Result<(Vec<Named>, String), CheckpointError> {
        let mut kept = Vec::new();
        for name in self.names()?.into_iter().filter(|name| name != RESIDUAL) {
            if let Some((shape, values)) = self.tensor(&name)? {
                kept.push((name, shape, values));
            }
        }
        kept.sort_by(|a, b| a.0.cmp(&b.0));
        let parameters: Vec<f32> = kept.iter().flat_map(|(_, _, values)| values.iter().copied()).collect();
        let sealed = digest(&parameters).to_hex().to_string();
        match self.get("dtwn.digest") == Some(sealed.as_str()) {
            true => Ok((kept, sealed)),
            false => Err(CheckpointError::Digest { path: self.path.clone() }),
        }
    }

    fn round(&self) -> Result<u64, CheckpointError> {
        self.get("dtwn.round").and_then(|round| round.parse().ok()).ok_or_else(|| CheckpointError::Damaged {
            path: self.path.clone(),
            why: "it names no round".into(),
        })
    }

    /// Shape and values of a tensor of f32.
    fn tensor(&self, name: &str) -> Result<Option<Shaped>, CheckpointError> {
        let tensors = self.tensors()?;
        let Ok(view) = tensors.tensor(name) else { return Ok(None) };
        if view.dtype() != Dtype::F32 {
            let why = format!("{name} is of {:?}, not f32", view.dtype());
            return Err(CheckpointError::Damaged { path: self.path.clone(), why });
        }
        let values = view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Ok(Some((view.shape().to_vec(), values)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity { fingerprint: "f".into(), seed: 4, dataset: "synthetic".into() }
    }

    fn layout() -> Vec<TensorLayout> {
        vec![("a.bias".into(), vec![2]), ("a.weight".into(), vec![2, 3])]
    }

    fn global(round: u64) -> Global {
        Global { round, parameters: (0..8).map(|i| i as f32 + round as f32).collect(), residual: Vec::new() }
    }

    fn shelf(dir: &Path) -> Shelf {
        Shelf::new(dir, identity(), layout())
    }

    #[test]
    fn the_newest_comes_back_and_few_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = shelf(dir.path());
        assert!(shelf.newest().unwrap().0.is_none());
        let rounded = Global { residual: vec![0.5; 8], ..global(9) };
        (0..9).for_each(|round| shelf.save(&global(round)).unwrap());
        shelf.save(&rounded).unwrap();
        assert_eq!(shelf.newest().unwrap().0, Some(rounded));
        let kept: Vec<u64> = of_node(dir.path()).into_iter().map(|(round, _)| round).collect();
        assert_eq!(kept, [7, 8, 9]);
        let checked = check(&of_node(dir.path())[0].1, &identity()).unwrap();
        assert_eq!(checked, (7, global(7).digest().to_hex().to_string()));
    }

    #[test]
    fn a_damaged_one_is_passed_over_for_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = shelf(dir.path());
        (1..=3).for_each(|round| shelf.save(&global(round)).unwrap());
        let paths: Vec<PathBuf> = of_node(dir.path()).into_iter().map(|(_, path)| path).collect();
        // A file cut off, and one with a bit that has turned in its last parameter.
        let whole = fs::read(&paths[2]).unwrap();
        fs::write(&paths[2], &whole[..whole.len() - 5]).unwrap();
        let mut turned = fs::read(&paths[1]).unwrap();
        *turned.last_mut().unwrap() ^= 1;
        fs::write(&paths[1], turned).unwrap();
        let (found, damaged) = shelf.newest().unwrap();
        assert_eq!(found, Some(global(1)));
        assert!(matches!(damaged[..], [CheckpointError::Damaged { .. }, CheckpointError::Digest { .. }]));
    }

    #[test]
    fn one_of_something_else_is_refused_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        shelf(dir.path()).save(&global(1)).unwrap();
        let refused =
            |identity, layout| Shelf::new(dir.path(), identity, layout).newest().unwrap_err().to_string();
        let seed = refused(Identity { seed: 5, ..identity() }, layout());
        assert!(seed.contains("its seed is 4, here it is 5"), "{seed}");
        let topology = refused(Identity { fingerprint: "g".into(), ..identity() }, layout());
        assert!(topology.contains("its topology is f"), "{topology}");
        let model = refused(identity(), vec![("a.bias".into(), vec![2]), ("a.weight".into(), vec![6])]);
        assert!(model.contains("its model is one where it has shape [2, 3]"), "{model}");
        let model = refused(identity(), vec![("b.bias".into(), vec![8])]);
        assert!(model.contains("its model is one without it"), "{model}");
        let path = &of_node(dir.path())[0].1;
        let bytes = fs::read(path).unwrap();
        let at = bytes.windows(20).position(|part| part == b"\"dtwn.checkpoint\":\"1").unwrap();
        let mut newer = bytes;
        newer[at + 19] = b'2';
        fs::write(path, newer).unwrap();
        let version = shelf(dir.path()).newest().unwrap_err().to_string();
        assert!(version.contains("its version of checkpoints is 2, here it is 1"), "{version}");
    }

    #[test]
    fn a_checkpoint_that_cannot_be_written_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = shelf(dir.path());
        shelf.save(&global(1)).unwrap();
        // Where the next one is to be prepared, something stands that cannot be written to.
        fs::create_dir(dir.path().join("checkpoints/round-000002.partial")).unwrap();
        assert!(matches!(shelf.save(&global(2)), Err(CheckpointError::Write { .. })));
        assert_eq!(shelf.newest().unwrap().0, Some(global(1)));
    }

    #[test]
    fn what_a_bs_rounded_off_is_found_by_its_round() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = shelf(dir.path());
        (1..=5).for_each(|round| shelf.save_residual(round, &[round as f32; 8]).unwrap());
        assert_eq!(shelf.residual(4).unwrap(), Some(vec![4.0; 8]));
        assert_eq!(shelf.residual(1).unwrap(), None);
    }

    #[test]
    fn what_would_spoil_models_is_not_gone_on_from() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = shelf(dir.path());
        let mut spoilt = [0.5; 8];
        spoilt[3] = f32::NAN;
        for bad in [&spoilt[..], &[0.5; 7], &[]] {
            shelf.save_residual(1, bad).unwrap();
            let error = shelf.residual(1).unwrap_err().to_string();
            assert!(error.contains("cannot be added to a model"), "{error}");
        }
    }

    #[test]
    fn an_export_holds_the_model_alone() {
        let dir = tempfile::tempdir().unwrap();
        let rounded = Global { residual: vec![0.5; 8], ..global(3) };
        shelf(dir.path()).save(&rounded).unwrap();
        let out = dir.path().join("model.safetensors");
        let said = export(&of_node(dir.path())[0].1, &out).unwrap();
        assert_eq!((said.round, &said.tensors), (3, &layout()));
        let bytes = fs::read(&out).unwrap();
        let read = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read.tensor("a.weight").unwrap().shape(), [2, 3]);
        assert_eq!(read.tensor("a.bias").unwrap().data(), bytes_of(&[3.0, 4.0]));
    }
}

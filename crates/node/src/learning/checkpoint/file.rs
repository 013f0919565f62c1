//! A checkpoint as a file: written whole or not at all, and read with its metadata.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use safetensors::{
    SafeTensors,
    tensor::{Dtype, SafeTensorError, TensorView, serialize},
};

use super::{CheckpointError, DIGEST, Global, Identity, RESIDUAL, RESIDUAL_DIGEST, TensorLayout, digest};

/// Version of the layout.
pub(super) const VERSION: &str = "1";
/// The largest file that is read: a hundred times the paper's model.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// A tensor to write: name, shape, bytes.
pub(super) type Part<'n, 'b> = (&'n str, Vec<usize>, &'b [u8]);

/// The tensors of a layout, as parts of `bytes`, which must be as many as they hold.
pub(super) fn split<'n, 'b>(layout: &'n [TensorLayout], bytes: &'b [u8]) -> io::Result<Vec<Part<'n, 'b>>> {
    let other = || io::Error::other("a model of another number of parameters");
    let mut rest = bytes;
    let mut parts = Vec::with_capacity(layout.len() + 1);
    for (name, shape) in layout {
        let (part, after) = rest.split_at_checked(4 * values_of(shape)).ok_or_else(other)?;
        parts.push((name.as_str(), shape.clone(), part));
        rest = after;
    }
    rest.is_empty().then_some(parts).ok_or_else(other)
}

/// How many values a tensor of this shape holds.
fn values_of(shape: &[usize]) -> usize {
    shape.iter().product()
}

pub(super) fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub(super) fn pack(tensors: Vec<Part<'_, '_>>, metadata: HashMap<String, String>) -> io::Result<Vec<u8>> {
    let broken = |error: SafeTensorError| io::Error::other(format!("{error:?}"));
    let mut views = Vec::with_capacity(tensors.len());
    for (name, shape, bytes) in tensors {
        views.push((name, TensorView::new(Dtype::F32, shape, bytes).map_err(broken)?));
    }
    serialize(views, &Some(metadata)).map_err(broken)
}

/// Writes a file beside its place, syncs it and moves it there: whatever happens, the place holds the old file or the new one.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
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

/// A file that was read, with its metadata.
pub(super) struct Raw {
    path: PathBuf,
    bytes: Vec<u8>,
    metadata: HashMap<String, String>,
}

impl Raw {
    pub(super) fn read(path: &Path) -> Result<Self, CheckpointError> {
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
        file.require("version of checkpoints", "dtwn.checkpoint", VERSION)?;
        Ok(file)
    }

    fn tensors(&self) -> Result<SafeTensors<'_>, CheckpointError> {
        SafeTensors::deserialize(&self.bytes)
            .map_err(|error| CheckpointError::Damaged { path: self.path.clone(), why: format!("{error:?}") })
    }

    fn names(&self) -> Result<Vec<String>, CheckpointError> {
        Ok(self.tensors()?.names().into_iter().cloned().collect())
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    pub(super) fn require(
        &self,
        what: &'static str,
        key: &str,
        expected: &str,
    ) -> Result<(), CheckpointError> {
        let found = self.get(key).unwrap_or("not named");
        if found == expected {
            return Ok(());
        }
        let (found, expected) = (found.to_owned(), expected.to_owned());
        Err(CheckpointError::Other { path: self.path.clone(), what, found, expected })
    }

    /// The seed comes first: it is part of the topology too, and says more.
    pub(super) fn belongs_to(&self, identity: &Identity) -> Result<(), CheckpointError> {
        self.require("seed", "dtwn.seed", &identity.seed.to_string())?;
        self.require("data set", "dtwn.dataset", &identity.dataset)?;
        self.require("topology", "dtwn.fingerprint", &identity.fingerprint)
    }

    /// The global model of exactly these tensors, finite, and its digest in hexadecimal, which was found right.
    pub(super) fn global(&self, layout: &[TensorLayout]) -> Result<(Global, String), CheckpointError> {
        self.require("kind", "dtwn.kind", "global")?;
        let mut parameters = Vec::new();
        for expected in layout {
            parameters.extend(self.parameters(expected)?);
        }
        let unknown = |name: &String| name != RESIDUAL && layout.iter().all(|(known, _)| known != name);
        if let Some(name) = self.names()?.into_iter().find(unknown) {
            return Err(self.other_model(format!("one with {name}"), "one without it".into()));
        }
        let sealed = self.sealed(DIGEST, &parameters)?;
        let residual = self.residual(layout)?.unwrap_or_default();
        Ok((Global { round: self.round()?, parameters, residual }, sealed))
    }

    /// The values of a tensor that a model must have.
    fn parameters(&self, expected: &TensorLayout) -> Result<Vec<f32>, CheckpointError> {
        let (name, shape) = expected;
        let other = |found| self.other_model(found, format!("one with {name} of shape {shape:?}"));
        let (found, values) = self.tensor(name)?.ok_or_else(|| other("one without it".into()))?;
        if found != *shape {
            return Err(other(format!("one where it has shape {found:?}")));
        }
        self.finite(name, values)
    }

    /// What was rounded off a model of these tensors: a number for each parameter, finite, so that it can be added to the next one.
    pub(super) fn residual(&self, layout: &[TensorLayout]) -> Result<Option<Vec<f32>>, CheckpointError> {
        let Some((_, values)) = self.tensor(RESIDUAL)? else { return Ok(None) };
        let expected: usize = layout.iter().map(|(_, shape)| values_of(shape)).sum();
        if values.len() != expected {
            let why = format!("{RESIDUAL} holds {} numbers where the model has {expected}", values.len());
            return Err(CheckpointError::Damaged { path: self.path.clone(), why });
        }
        let values = self.finite(RESIDUAL, values)?;
        self.sealed(RESIDUAL_DIGEST, &values)?;
        Ok(Some(values))
    }

    /// The digest of numbers in hexadecimal, which must be the one that is named under a key.
    fn sealed(&self, key: &str, values: &[f32]) -> Result<String, CheckpointError> {
        let sealed = digest(values).to_hex().to_string();
        match self.get(key) == Some(sealed.as_str()) {
            true => Ok(sealed),
            false => Err(CheckpointError::Digest { path: self.path.clone() }),
        }
    }

    fn finite(&self, tensor: &str, values: Vec<f32>) -> Result<Vec<f32>, CheckpointError> {
        match values.iter().all(|value| value.is_finite()) {
            true => Ok(values),
            false => Err(CheckpointError::NotFinite { path: self.path.clone(), tensor: tensor.to_owned() }),
        }
    }

    fn other_model(&self, found: String, expected: String) -> CheckpointError {
        CheckpointError::Other { path: self.path.clone(), what: "model", found, expected }
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

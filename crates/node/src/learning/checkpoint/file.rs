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

use super::{CheckpointError, Identity, RESIDUAL, digest};

/// Version of the layout.
pub(super) const VERSION: &str = "1";
/// The largest file that is read: a hundred times the paper's model.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// A tensor to write: name, shape, bytes.
pub(super) type Part<'n, 'b> = (&'n str, Vec<usize>, &'b [u8]);

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

/// A tensor that was read: name, shape, values.
type Named = (String, Vec<usize>, Vec<f32>);

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

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    pub(super) fn expect(
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
        self.expect("seed", "dtwn.seed", &identity.seed.to_string())?;
        self.expect("data set", "dtwn.dataset", &identity.dataset)?;
        self.expect("topology", "dtwn.fingerprint", &identity.fingerprint)
    }

    /// The model's tensors sorted by name, and its digest in hexadecimal, which was found right.
    pub(super) fn model(&self) -> Result<(Vec<Named>, String), CheckpointError> {
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

    pub(super) fn round(&self) -> Result<u64, CheckpointError> {
        self.get("dtwn.round").and_then(|round| round.parse().ok()).ok_or_else(|| CheckpointError::Damaged {
            path: self.path.clone(),
            why: "it names no round".into(),
        })
    }

    /// Shape and values of a tensor of f32.
    pub(super) fn tensor(&self, name: &str) -> Result<Option<Shaped>, CheckpointError> {
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

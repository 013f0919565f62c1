//! The chains that the nodes of a run keep on disk, as tools and the session see them: read, never voted from.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use dtwn_chain::{
    genesis::Registry,
    store::{Comparison, Store, compare},
    types::ReplicaId,
};
use dtwn_model::{
    Plan,
    plan::Role,
    suggest,
    topology::{self, Overrides},
};

use crate::{
    error::{Error, Result},
    session::RunFiles,
};

/// A node's public key in hexadecimal digits, by the node's name.
type Keys = BTreeMap<String, String>;

/// Where the public keys of a run's nodes are.
pub fn keys_path(run_dir: &Path) -> PathBuf {
    run_dir.join("keys.json")
}

/// Writes the public keys of a run's nodes, without which nobody could check its chain afterwards.
///
/// # Errors
/// When the file cannot be written.
pub fn write_keys(run_dir: &Path, keys: &[(String, [u8; 32])]) -> Result<()> {
    let hex = |key: &[u8; 32]| key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let keys: Keys = keys.iter().map(|(node, key)| (node.clone(), hex(key))).collect();
    let path = keys_path(run_dir);
    let text = serde_json::to_string_pretty(&keys).map_err(|error| Error::Output(error.into()))?;
    fs::write(&path, text + "\n").map_err(Error::file("write", path))
}

fn read_keys(run_dir: &Path) -> Result<Vec<(String, [u8; 32])>> {
    let path = keys_path(run_dir);
    let malformed = |detail: String| Error::File {
        what: "read",
        path: path.clone(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, detail),
    };
    let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    let keys: Keys = serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
    keys.into_iter()
        .map(|(node, hex)| {
            let key = key_from_hex(&hex);
            let key =
                key.ok_or_else(|| malformed(format!("the key of {node} is not 64 hexadecimal digits")))?;
            Ok((node, key))
        })
        .collect()
}

fn key_from_hex(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    let mut key = [0; 32];
    for (index, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(key)
}

/// The chain of a run.
pub struct RunChain {
    /// The run's directory.
    pub run_dir: PathBuf,
    /// What its nodes agreed on before the first block.
    pub registry: Arc<Registry>,
    /// BSs in the order of the topology: `stations[i]` is `ReplicaId(i)`.
    pub stations: Vec<String>,
    /// The MBS, which holds a copy.
    mbs: Option<String>,
}

impl RunChain {
    /// Finds the chain of a run from the topology and the keys in its directory.
    ///
    /// # Errors
    /// When a file is missing or wrong, or the run keeps no chain.
    pub fn of_run(run_dir: &Path) -> Result<Self> {
        let path = RunFiles::topology(run_dir);
        let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        let loaded = topology::parse(&path, text, &Overrides::default())?;
        let plan = Plan::new(&loaded.topology)?;
        if !plan.topology().chain.is_on(plan.bs_count()) {
            return Err(Error::NoChain(run_dir.to_owned()));
        }
        Self::of_plan(run_dir, &plan, &read_keys(run_dir)?)
    }

    /// The chain of a plan whose nodes have these keys.
    ///
    /// # Errors
    /// When no chain can begin from there.
    pub fn of_plan(run_dir: &Path, plan: &Plan, keys: &[(String, [u8; 32])]) -> Result<Self> {
        let genesis = dtwn_node::chain::genesis(plan, keys)?;
        let named = |role: fn(Role) -> bool| {
            plan.nodes.iter().filter(move |node| role(node.role)).map(|node| node.name.clone())
        };
        Ok(Self {
            run_dir: run_dir.to_owned(),
            registry: Registry::new(genesis)?,
            stations: named(|role| matches!(role, Role::Bs(_))).collect(),
            mbs: named(|role| role == Role::Mbs).next(),
        })
    }

    /// The nodes that keep the chain: the BSs, then the MBS.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.stations.iter().chain(&self.mbs).map(String::as_str)
    }

    /// The name of a BS.
    pub fn name_of(&self, id: ReplicaId) -> String {
        self.stations.get(id.index()).cloned().unwrap_or_else(|| id.to_string())
    }

    /// Where a node keeps its chain.
    pub fn path(&self, node: &str) -> PathBuf {
        RunFiles::state(&self.run_dir, node).join("chain.redb")
    }

    /// The node called `name`, if it keeps a chain.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is none.
    pub fn node(&self, name: &str) -> Result<String> {
        let found = self.nodes().find(|node| *node == name).map(str::to_owned);
        found.ok_or_else(|| {
            let hint =
                suggest(name, self.nodes()).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            Error::Refused(format!("no node `{name}` keeps the chain: BSs and the MBS do{hint}"))
        })
    }

    /// Opens a node's store to look at it.
    ///
    /// # Errors
    /// When it is missing, damaged, or of another chain.
    pub fn inspect(&self, node: &str) -> Result<Store> {
        Ok(Store::inspect(self.path(node), &self.registry)?)
    }

    /// Compares the stores of all nodes that have one, as far as they can be read, and says which cannot.
    ///
    /// # Errors
    /// When one that was opened cannot be read on.
    pub fn compare(&self) -> Result<(Comparison, Vec<Error>)> {
        let mut stores = Vec::new();
        let mut unreadable = Vec::new();
        for node in self.nodes().filter(|node| self.path(node).exists()) {
            match self.inspect(node) {
                Ok(store) => stores.push((node, store)),
                Err(error) => unreadable.push(error),
            }
        }
        Ok((compare(stores.iter().map(|(node, store)| (*node, store)))?, unreadable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_and_wrong_ones_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let keys = vec![("bs1".to_owned(), [0xa5; 32]), ("mbs".to_owned(), [3; 32])];
        write_keys(dir.path(), &keys).unwrap();
        assert_eq!(read_keys(dir.path()).unwrap(), keys);
        for wrong in
            [r#"{"bs1": "a5"}"#, r#"{"bs1": 7}"#, "nothing", &format!(r#"{{"bs1": "{}"}}"#, "g".repeat(64))]
        {
            fs::write(keys_path(dir.path()), wrong).unwrap();
            let error = read_keys(dir.path()).unwrap_err().to_string();
            assert!(error.contains("keys.json"), "{error}");
        }
    }
}

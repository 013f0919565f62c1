//! Topology files: what a person writes about a network, read into types with every default filled in.
//!
//! One file of this module a section of the file. To add a section: write its struct (`Default`, `deny_unknown_fields`),
//! give [`Topology`] a field for it, and call its checks from `validate`. How quantities are written is told in
//! [`units`](crate::units).

mod association;
mod chain;
mod cost;
mod error;
mod layers;
mod learning;
mod link;
mod load;
mod maddpg;
mod nodes;
mod or_none;
mod radio;
mod resolve;
mod run;
mod spans;
mod tcp;
mod twins;
mod validate;

pub use association::{Association, PolicyName};
pub use chain::{Chain, PRODUCERS_MIN, Switch, TX_OVERHEAD_BYTES};
pub use cost::{Cost, Payload};
pub use error::{Origin, Problem, TopologyError};
pub use layers::{Overrides, RESERVED_VARIABLES};
pub use learning::{Aggregation, Compute, Learner, Learning, ModelFormat, Optimiser, Partition, Poison};
pub use link::{
    Arq, Discipline, GilbertElliott, LinkClasses, LinkOverride, LinkSettings, Loss, QueueLimit, RateSource,
};
pub use load::{Loaded, load, parse};
pub use maddpg::{Algorithm, Maddpg};
pub use nodes::{Bs, Mbs, SampleRange, Samples, UserGroup};
pub use or_none::OrNone;
pub use radio::{AccessBand, Fading, Interference, Powers, Radio};
pub use run::{Restart, Run};
pub use tcp::{Tcp, TcpTuning};
pub use twins::Twins;

use serde::{Deserialize, Serialize};

/// A network as its file describes it, with every default filled in and generated BSs written out.
///
/// Values of this type that come from [`load`] have passed all checks.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Topology {
    /// How the kernel's TCP is set up inside the network.
    pub tcp: Tcp,
    /// Name, seed, dilation, duration, restart policy.
    pub run: Run,
    /// The channel: Eq. 7–8 and what fades it.
    pub radio: Radio,
    /// Constants of the cost model, Eq. 12–18.
    pub cost: Cost,
    /// The DPoS chain of the BSs.
    pub chain: Chain,
    /// Rounds of federated learning.
    pub learning: Learning,
    /// How twins, data and subchannels are shared out among the BSs.
    pub association: Association,
    /// How the agents of the BSs learn to decide it.
    pub maddpg: Maddpg,
    /// How digital twins follow their users.
    pub twins: Twins,
    /// The macro base station.
    pub mbs: Mbs,
    /// The properties of links, by class, and exceptions.
    pub link: LinkClasses,
    /// The base stations, at least one.
    pub bs: Vec<Bs>,
    /// The user groups.
    pub users: Vec<UserGroup>,
}

/// The most base stations: their index stands in the low 8 bits of an alias address, where 0 is the MBS and 255 unused.
pub const BS_MAX: usize = 254;
/// The most user groups. With [`BS_MAX`] and the MBS, a network has at most 509 nodes.
pub const GROUPS_MAX: usize = 254;
/// The most users over all groups: their index stands in 15 bits of an alias address.
pub const USERS_MAX: usize = 1 << 15;

impl Topology {
    /// The topology as a TOML file that loads to the same value.
    ///
    /// # Errors
    /// None for a loaded topology; a hand-made one may hold what TOML cannot (an integer above 2^63).
    pub fn render(&self) -> Result<String, TopologyError> {
        toml::to_string(self).map_err(|e| TopologyError::Render { message: e.to_string() })
    }

    /// The BLAKE3 hash, in hexadecimal, of [`render`](Self::render)'s text: equal for equal networks, however written.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn hash(&self) -> Result<String, TopologyError> {
        Ok(blake3::hash(self.render()?.as_bytes()).to_hex().to_string())
    }

    /// The BLAKE3 hash, in hexadecimal, of what decides what a run learns: as [`hash`](Self::hash), whatever the run's duration,
    /// dilation and restart policy are and wherever its data set and the file of its association policy lie.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn fingerprint(&self) -> Result<String, TopologyError> {
        let mut same = self.clone();
        same.run = Run { name: self.run.name.clone(), seed: self.run.seed, ..Run::default() };
        // The set itself is told apart by its name; its files may have moved.
        same.learning.data = self.learning.data.as_ref().map(|_| "/".to_owned());
        // A run keeps a copy of the policy's file under a name of its own.
        same.association.file = self.association.file.as_ref().map(|_| "policy".to_owned());
        same.hash()
    }

    /// How many users all groups have together.
    pub fn user_count(&self) -> usize {
        self.users.iter().map(|group| group.count as usize).sum()
    }

    /// How many nodes (processes with a namespace) the network has: the MBS, the BSs, the user groups.
    pub fn node_count(&self) -> usize {
        1 + self.bs.len() + self.users.len()
    }
}

#[cfg(test)]
mod tests;

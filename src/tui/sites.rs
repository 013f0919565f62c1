//! Where stations are: read once from the topology in the run directory.

use std::path::Path;

use dtwn_model::{
    Plan,
    geometry::Position,
    plan::Role,
    topology::{self, Overrides},
};

use crate::session::RunFiles;

/// What a station is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// The macro base station.
    Mbs,
    /// A base station: how far its users may be, metres.
    Bs(f64),
    /// A user.
    User,
}

/// A station's place.
#[derive(Debug, Clone)]
pub struct Site {
    /// The station.
    pub name: String,
    /// The node that it belongs to.
    pub node: String,
    /// What it is.
    pub kind: Kind,
    /// Where it is, metres.
    pub at: Position,
}

/// The places of all stations.
#[derive(Debug, Clone, Default)]
pub struct Sites {
    /// The MBS, the BSs, the users.
    pub all: Vec<Site>,
    /// Why there are none.
    pub error: Option<String>,
}

impl Sites {
    /// Reads the topology of a run.
    pub fn read(run_dir: &Path) -> Self {
        let path = RunFiles::topology(run_dir);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => return Self::failed(&format!("cannot read {}: {error}", path.display())),
        };
        Self::parse(&path, text)
    }

    /// Reads a topology's text.
    pub fn parse(path: &Path, text: String) -> Self {
        let loaded = match topology::parse(path, text, &Overrides::default()) {
            Ok(loaded) => loaded,
            Err(error) => return Self::failed(&error.to_string()),
        };
        match Plan::new(&loaded.topology) {
            Ok(plan) => Self::of(&plan),
            Err(error) => Self::failed(&error.to_string()),
        }
    }

    fn of(plan: &Plan) -> Self {
        let sites = plan.stations.iter().map(|station| {
            let node = &plan.nodes[station.node.index()];
            let kind = match node.role {
                Role::Mbs => Kind::Mbs,
                Role::Bs(bs) => {
                    Kind::Bs(plan.topology().bs.get(bs.index()).map_or(0.0, |bs| bs.coverage.get()))
                }
                Role::Users => Kind::User,
            };
            Site { name: station.name.clone(), node: node.name.clone(), kind, at: station.position }
        });
        Self { all: sites.collect(), error: None }
    }

    fn failed(error: &str) -> Self {
        Self { all: Vec::new(), error: Some(super::data::clean(error)) }
    }

    /// A station's place.
    pub fn get(&self, name: &str) -> Option<&Site> {
        self.all.iter().find(|site| site.name == name)
    }
}

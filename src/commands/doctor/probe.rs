//! What the child process of `dtwn doctor` tries, in the order in which a session needs it.

use std::path::Path;

use dtwn_model::Plan;
use dtwn_sys::{
    netns::NetNs,
    sched, tun,
    userns::{self, Privilege},
};
use serde::{Deserialize, Serialize};

use super::checks::in_words;
use crate::{
    capacity,
    error::{Error, Result},
    machine,
    session::{network, spawner::Spawner},
};

/// The slice that the medium asks for, ns.
const SLICE_NS: u64 = 200_000;

/// What was tried, in order; what a failure made impossible is missing.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Place {
    /// Whether the process had what it takes without a user namespace.
    pub capable: bool,
    /// A user namespace where one is needed, and a mount namespace.
    pub own: Option<Outcome>,
    /// A network namespace.
    pub network: Option<Outcome>,
    /// A TUN device in it.
    pub tun: Option<Outcome>,
    /// Addresses, routes and TCP settings of a network of two nodes; notes name settings that are missing.
    pub settings: Option<Outcome>,
    /// The short scheduler slice of the medium's thread.
    pub slice: Option<Outcome>,
    /// A PID namespace and its init; notes name what nodes will see of the host.
    pub pid: Option<Outcome>,
}

/// How one step went.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It worked.
    Worked {
        /// What is not as it might be.
        notes: Vec<String>,
    },
    /// It did not.
    Failed {
        /// Why.
        what: String,
        /// What to do about it.
        help: String,
    },
}

impl Outcome {
    fn of(result: Result<Vec<String>>) -> Self {
        match result {
            Ok(notes) => Self::Worked { notes },
            Err(error) => {
                let (what, help) = in_words(&error);
                Self::Failed { what, help }
            }
        }
    }

    /// Whether it worked.
    pub fn worked(&self) -> bool {
        matches!(self, Self::Worked { .. })
    }
}

/// Tries everything. Must be called before the process has started any thread.
pub fn place() -> Place {
    let mut place =
        Place { capable: userns::privilege().is_ok_and(|p| p == Privilege::Capable), ..Place::default() };
    let own = place.own.insert(Outcome::of(machine::enter_namespaces().map(|_| Vec::new())));
    if !own.worked() {
        return place;
    }
    let network = NetNs::create(|| Ok(tun::open_tun(network::INTERFACE)));
    match network {
        Err(error) => place.network = Some(Outcome::of(Err(machine::userns_error(&error)))),
        Ok((_namespace, tun)) => {
            place.network = Some(Outcome::of(Ok(Vec::new())));
            let tun = tun.map(|_| Vec::new()).map_err(|error| match error.errno() {
                Some(errno) => machine::tun_error(errno, tun::DEVICE),
                None => error.into(),
            });
            place.tun = Some(Outcome::of(tun));
        }
    }
    if place.tun.as_ref().is_some_and(Outcome::worked) {
        place.settings = Some(Outcome::of(settings()));
    }
    place.slice = Some(Outcome::of(sched::set_slice_ns(SLICE_NS).map(|()| Vec::new()).map_err(Error::from)));
    place.pid = Some(Outcome::of(pid()));
    place
}

/// Builds a network of two nodes, as a session would.
fn settings() -> Result<Vec<String>> {
    Ok(network::build(&Plan::new(&capacity::wire())?)?.warnings)
}

fn pid() -> Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::file("start", "the runtime"))?;
    let (_spawner, place) = Spawner::start(Path::new("/etc/hosts"), runtime.handle().clone())?;
    Ok(place.warnings)
}

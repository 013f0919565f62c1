//! What the medium carries on this machine, and whether that is enough for a network.
//!
//! Measured and not computed: a TCP flow between two namespaces crosses the same TUNs, routes, TCP settings and medium that
//! networks use, over links far faster than the machine. That takes a third of a second and a process of its own, since an
//! unprivileged one must enter a user namespace before it starts a thread. The result is kept until the machine reboots.

mod measure;

use std::{
    fs,
    process::Command,
    time::{Duration, SystemTime},
};

use dtwn_model::{Plan, cost, topology::Payload, units::BitsPerSecond};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    machine,
    registry::Registry,
    session::own_program,
};

pub use measure::{measure, wire};

/// How long the measuring process may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Cores kept busy by others above which a measurement says more of them than of the machine.
const DISTURBED_CORES: f64 = 0.25;

/// Age from which a disturbed measurement is made again; an undisturbed one holds until the machine reboots.
const DISTURBED_AGE: Duration = Duration::from_secs(600);

/// What the medium carried, in wall time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// Whole IP packets written to TUNs, both directions, bits a second.
    pub bits_per_s: f64,
    /// The same in packets a second.
    pub packets_per_s: f64,
    /// Cores that other programs kept busy meanwhile: what was measured is what they left.
    pub others_busy_cores: f64,
    /// For how long it was measured, milliseconds.
    pub window_ms: f64,
}

impl Capacity {
    /// Whether other programs took so much of the machine that another time would give more.
    pub fn is_disturbed(&self) -> bool {
        self.others_busy_cores > DISTURBED_CORES
    }

    /// The rate as a quantity.
    pub fn rate(&self) -> BitsPerSecond {
        BitsPerSecond::new(self.bits_per_s)
    }

    /// In words, for a person.
    pub fn describe(&self) -> String {
        let mut text = format!("{:.1} in {:.0} thousand packets/s", self.rate(), self.packets_per_s / 1e3);
        if self.is_disturbed() {
            let busy = self.others_busy_cores;
            text.push_str(&format!(", with {busy:.1} cores busy for others"));
        }
        text
    }
}

/// A measurement as it is kept in the user's directory.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Kept {
    key: Key,
    at_unix_s: u64,
    capacity: Capacity,
}

/// What a measurement holds for: this boot, this program as it was compiled, these cores.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Key {
    boot_id: String,
    version: String,
    debug_build: bool,
    cores: usize,
}

impl Key {
    fn current() -> Self {
        Self {
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .map_or(String::new(), |id| id.trim().to_owned()),
            version: dtwn_proto::VERSION.to_owned(),
            debug_build: cfg!(debug_assertions),
            cores: machine::cores(),
        }
    }
}

/// The capacity, as kept from an earlier measurement where that still holds, and measured otherwise.
///
/// # Errors
/// What keeps namespaces, TUNs or the medium from working here.
pub fn known() -> Result<Capacity> {
    match kept() {
        Some(kept) if still_holds(&kept, unix_s()) => Ok(kept.capacity),
        _ => renewed(),
    }
}

/// The capacity, measured now; kept for later commands unless a better one is.
///
/// # Errors
/// As [`known`].
pub fn renewed() -> Result<Capacity> {
    let mut command = Command::new(own_program()?);
    command.args(["__probe", "capacity"]);
    let answer: Answer = machine::ask(command, PATIENCE)?;
    let now = match answer {
        Answer::Measured(capacity) => capacity,
        Answer::Failed { what, help } => return Err(Error::Machine { what, help }),
    };
    // A busy moment must not hide for the rest of the day what the machine can do.
    let earlier = kept().filter(|kept| now.is_disturbed() && kept.capacity.bits_per_s > now.bits_per_s);
    keep(&Kept {
        key: Key::current(),
        at_unix_s: unix_s(),
        capacity: earlier.map_or(now, |kept| kept.capacity),
    });
    Ok(now)
}

/// What the measuring process prints.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It worked.
    Measured(Capacity),
    /// It did not.
    Failed {
        /// Why.
        what: String,
        /// What to do about it.
        help: String,
    },
}

fn still_holds(kept: &Kept, now_unix_s: u64) -> bool {
    let age = Duration::from_secs(now_unix_s.saturating_sub(kept.at_unix_s));
    !kept.capacity.is_disturbed() || age < DISTURBED_AGE
}

fn kept() -> Option<Kept> {
    let path = Registry::open().ok()?.capacity();
    let kept: Kept = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (kept.key == Key::current()).then_some(kept)
}

/// A measurement that cannot be kept is made again next time, and is no reason to fail.
fn keep(kept: &Kept) {
    let write = || -> std::io::Result<()> {
        let path = Registry::open().map_err(std::io::Error::other)?.capacity();
        // A reader sees the old file or the new one, never half of one.
        let new = path.with_extension(format!("new-{}", std::process::id()));
        fs::write(&new, serde_json::to_vec(kept)?)?;
        fs::rename(&new, &path)
    };
    if let Err(error) = write() {
        tracing::warn!(%error, "the measured capacity cannot be kept");
    }
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A network's load beside the machine's capacity. All rates are wall rates, bit/s.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// What the medium carries; `None` when it could not be measured.
    pub capacity: Option<Capacity>,
    /// All transmitters busy at once with traffic of their own: more than any use of the network offers.
    pub offered_peak_bps_wall: f64,
    /// Mean over a round of the average policy (Eq. 17).
    pub offered_average_bps_wall: f64,
    /// The dilation in force.
    pub dilation: f64,
    /// The dilation at which the peak fits, where that is more than the one in force.
    pub dilation_needed: Option<f64>,
}

impl Judgement {
    /// Compares a plan with what the machine carries.
    pub fn new(plan: &Plan, capacity: Option<Capacity>) -> Self {
        let peak = plan.offered_peak(slots(plan)).total();
        let fits = capacity.map(|capacity| dilation_for(peak.get(), capacity.bits_per_s));
        Self {
            capacity,
            offered_peak_bps_wall: peak.in_wall(plan.dilation).get(),
            offered_average_bps_wall: average_bps(plan) / plan.dilation,
            dilation: plan.dilation,
            dilation_needed: fits.filter(|dilation| *dilation > plan.dilation),
        }
    }

    /// What to tell a person before the run, if there is anything to tell. A peak that does not fit is worth a note, for it may
    /// never come; an average that does not fit is worth a warning.
    pub fn advice(&self) -> Option<String> {
        let (capacity, needed) = (self.capacity?, self.dilation_needed?);
        let rate = BitsPerSecond::new;
        let (peak, average) = (rate(self.offered_peak_bps_wall), rate(self.offered_average_bps_wall));
        let (weight, outlook) = if self.offered_average_bps_wall > capacity.bits_per_s {
            ("warning", "The links will not hold their rates")
        } else {
            ("note", "Rounds fit; should bursts not, the verdict on fidelity will tell")
        };
        Some(format!(
            "{weight}: this network offers {average:.1} on average over a round and {peak:.1} with all transmitters busy; \
             this machine carries {}. {outlook}. With --dilation {needed} even the peak fits.",
            capacity.describe(),
        ))
    }
}

/// Coherence slots looked at: many links cost much and average each other's fading out.
fn slots(plan: &Plan) -> u64 {
    (4_000 / plan.links.len().max(1) as u64).clamp(1, 16)
}

/// The least dilation, rounded up to halves (to whole numbers from 10 on), at which an emulated load fits.
fn dilation_for(load_bps: f64, capacity_bps: f64) -> f64 {
    let least = load_bps / capacity_bps;
    let step = if least > 10.0 { 1.0 } else { 2.0 };
    ((least * step).ceil() / step).max(1.0)
}

/// Mean emulated load of a round of the average policy, bit/s: what has to reach others, over the time that Eq. 17 gives.
///
/// Each BS's payload reaches the M − 1 others (Eq. 15) and the block M_p − 1 producers (Eq. 16).
fn average_bps(plan: &Plan) -> f64 {
    let settings = &plan.topology().cost;
    let slots = slots(plan);
    let total: f64 = (0..slots)
        .map(|slot| {
            let loads = plan.average_loads(slot);
            let stations = loads.len();
            let models: f64 = loads
                .iter()
                .map(|load| match settings.payload {
                    Payload::Twins => f64::from(load.twins),
                    Payload::Aggregate => f64::from(load.twins.min(1)),
                })
                .sum();
            let producers = (settings.producers as usize).min(stations);
            let bits = models * settings.model_size.bits() * stations.saturating_sub(1) as f64
                + cost::block_bits(settings, stations) * producers.saturating_sub(1) as f64;
            let round_s = cost::terms(settings, &loads).total_s();
            if round_s > 0.0 && round_s.is_finite() { bits / round_s } else { 0.0 }
        })
        .sum();
    total / slots as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity(bits_per_s: f64, others_busy_cores: f64) -> Capacity {
        Capacity { bits_per_s, packets_per_s: bits_per_s / 12_000.0, others_busy_cores, window_ms: 200.0 }
    }

    fn plan(text: &str) -> Plan {
        let text = format!("{text}\n[[bs]]\nid = \"bs\"\ncount = 2\nring = \"100 m\"\n");
        let loaded = dtwn_model::topology::parse("t.toml", text, &dtwn_model::Overrides::default()).unwrap();
        Plan::new(&loaded.topology).unwrap()
    }

    #[test]
    fn the_dilation_is_rounded_up() {
        for (load, capacity, expected) in
            [(1.0, 2.0, 1.0), (2.0, 2.0, 1.0), (2.1, 2.0, 1.5), (9.9, 1.0, 10.0), (10.2, 1.0, 11.0)]
        {
            assert_eq!(dilation_for(load, capacity), expected, "{load} over {capacity}");
        }
    }

    #[test]
    fn a_network_is_told_when_it_outgrows_the_machine() {
        // Two links of 1 Gbit/s up, two down, all busy, twice slower than real time: 2 Gbit/s.
        let fixed =
            "[run]\ndilation = 2\n[link.uplink]\nrate = \"1 Gbit/s\"\n[link.downlink]\nrate = \"1 Gbit/s\"";
        let plan = plan(fixed);
        let enough = Judgement::new(&plan, Some(capacity(2e9, 0.0)));
        assert_eq!((enough.offered_peak_bps_wall, enough.dilation_needed), (2e9, None));
        assert_eq!(enough.advice(), None);

        let short = Judgement::new(&plan, Some(capacity(1.5e9, 0.0)));
        assert_eq!(short.dilation_needed, Some(3.0));
        let note = short.advice().unwrap();
        assert!(note.contains("--dilation 3 ") && note.starts_with("note: "), "{note}");

        let hopeless = Judgement::new(&plan, Some(capacity(1e3, 0.0)));
        assert!(hopeless.advice().unwrap().starts_with("warning: "), "{hopeless:?}");
        assert_eq!(Judgement::new(&plan, None).advice(), None);
    }

    #[test]
    fn the_average_counts_what_reaches_others() {
        // Without users there are no models. M_p is capped at M = 2: a block of 1 Mbit reaches the other producer in
        // ½ · log2 2 · 1/100 s, and is validated at 1 cycle a bit on 2.4 GHz.
        let plan = plan(
            "[cost]\nxi = 0.5\nblock_size = \"125 kB\"\ncycles_per_validated_bit = 1.0\n\
             [link.uplink]\nrate = \"100 Mbit/s\"\n[link.downlink]\nrate = \"100 Mbit/s\"",
        );
        let round_s = 0.005 + 1e6 / 2.4e9;
        assert!((average_bps(&plan) - 1e6 / round_s).abs() < 1.0, "{}", average_bps(&plan));
    }

    #[test]
    fn a_disturbed_measurement_ages_and_an_undisturbed_one_does_not() {
        let kept = |others| Kept { key: Key::current(), at_unix_s: 1_000, capacity: capacity(1e9, others) };
        assert!(still_holds(&kept(0.1), 1_000_000));
        assert!(still_holds(&kept(1.0), 1_599));
        assert!(!still_holds(&kept(1.0), 1_600));
    }
}

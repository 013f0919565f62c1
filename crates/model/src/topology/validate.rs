//! What a topology must satisfy beyond the types of its values.

mod checks;
mod links;
mod stations;

use super::load::Finding;
use super::{Cost, Radio, Run, Tcp, Topology};
use crate::units::Interval;
use checks::Checks;

/// Everything that is wrong with a topology, by its path in the topology.
pub(super) fn validate(topology: &Topology) -> Vec<Finding> {
    let mut checks = Checks::default();
    run(&topology.run, &mut checks);
    radio(&topology.radio, &mut checks);
    cost(&topology.cost, &mut checks);
    for (key, message, help) in topology.chain.problems(topology.bs.len()) {
        checks.fail(format!("chain.{key}"), message, help);
    }
    tcp(&topology.tcp, &mut checks);
    checks.positive_time("learning.deadline", topology.learning.deadline);
    let stations: Vec<String> = topology.bs.iter().map(|bs| bs.id.clone()).collect();
    for (key, message, help) in topology.learning.problems(&stations) {
        checks.fail(format!("learning.{key}"), message, help);
    }
    for (key, message, help) in topology.association.problems() {
        checks.fail(format!("association.{key}"), message, help);
    }
    for (key, message, help) in topology.maddpg.problems() {
        checks.fail(format!("maddpg.{key}"), message, help);
    }
    checks.positive_time("twins.sync_period", topology.twins.sync_period);
    stations::stations(topology, &mut checks);
    links::links(topology, &mut checks);
    checks.findings
}

/// The slowest emulation: a day of emulated time would take a year and more.
const DILATION_MAX: f64 = 1000.0;
/// Each coherence interval recomputes all rates: shorter ones would spend the machine on that.
const COHERENCE_MIN: Interval = Interval::from_millis(1);
/// Beyond this correlation the fading's memory is thousands of slots long.
const FADING_MEMORY_MAX: f64 = 0.999;

fn run(run: &Run, checks: &mut Checks) {
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let fine = (1..=64).contains(&run.name.len()) && run.name.chars().all(safe) && !run.name.starts_with('.');
    checks.ensure(
        fine,
        "run.name",
        || format!("`run.name` = {:?} cannot name a directory", run.name),
        "1 to 64 letters, digits, `-`, `_` or `.`, not beginning with `.`",
    );
    checks.range("run.dilation", run.dilation, 1.0, DILATION_MAX);
    checks.ensure(
        run.seed <= i64::MAX as u64,
        "run.seed",
        || format!("`run.seed` = {} is too large", run.seed),
        "allowed: 0 to 9223372036854775807",
    );
    if let Some(duration) = run.duration.get() {
        checks.positive_time("run.duration", duration);
    }
}

fn radio(radio: &Radio, checks: &mut Checks) {
    checks.range("radio.subchannels", f64::from(radio.subchannels), 1.0, 1024.0);
    checks.above_zero("radio.bandwidth", radio.bandwidth.get());
    checks.above_zero("radio.access.bandwidth", radio.access.bandwidth.get());
    checks.above_zero("radio.reference_distance", radio.reference_distance.get());
    checks.range("radio.path_loss_exponent", radio.path_loss_exponent, 0.0, 10.0);
    checks.range("radio.fading_memory", radio.fading_memory, 0.0, FADING_MEMORY_MAX);
    checks.ensure(
        radio.coherence_time >= COHERENCE_MIN,
        "radio.coherence_time",
        || format!("`radio.coherence_time` = {} is too short", radio.coherence_time),
        "allowed: at least 1 ms",
    );
    if let Some(se_max) = radio.se_max.get() {
        checks.above_zero("radio.se_max", se_max);
    }
}

fn cost(cost: &Cost, checks: &mut Checks) {
    checks.above_zero("cost.cycles_per_sample", cost.cycles_per_sample);
    checks.range("cost.cycles_per_aggregated_bit", cost.cycles_per_aggregated_bit, 0.0, 1e12);
    checks.range("cost.cycles_per_validated_bit", cost.cycles_per_validated_bit, 0.0, 1e12);
    checks.above_zero("cost.xi", cost.xi);
    checks.above_zero("cost.model_size", cost.model_size.bits());
    if let Some(size) = cost.block_size.get() {
        checks.above_zero("cost.block_size", size.bits());
    }
    checks.inside("cost.theta_th", cost.theta_th, 0.0, 1.0);
    checks.above_zero("cost.theta_a", cost.theta_a);
    checks.above_zero("cost.theta_p", cost.theta_p);
    checks.ensure(
        cost.b_min > 0.0 && cost.b_min <= 1.0,
        "cost.b_min",
        || format!("`cost.b_min` = {} is out of range", cost.b_min),
        "allowed: above 0, at most 1",
    );
    checks.ensure(
        cost.b_max >= cost.b_min && cost.b_max <= 1.0,
        "cost.b_max",
        || format!("`cost.b_max` = {} is out of range", cost.b_max),
        "allowed: from `cost.b_min` to 1",
    );
}

fn tcp(tcp: &Tcp, checks: &mut Checks) {
    let Tcp::Tuned(tuning) = tcp else { return };
    checks.ensure(
        (Interval::from_millis(1)..=Interval::from_millis(10_000)).contains(&tuning.rto_min),
        "tcp.rto_min",
        || format!("`tcp.rto_min` = {} is out of range", tuning.rto_min),
        "allowed: 1 ms to 10 s",
    );
    let name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    checks.ensure(
        // TCP_CA_NAME_MAX is 16 with the terminating zero.
        (1..16).contains(&tuning.congctl.len()) && tuning.congctl.chars().all(name),
        "tcp.congctl",
        || format!("`tcp.congctl` = {:?} is not the name of a congestion control", tuning.congctl),
        "a name from /proc/sys/net/ipv4/tcp_available_congestion_control, like \"cubic\"",
    );
    checks.range("tcp.notsent_lowat", tuning.notsent_lowat.get() as f64, 1.0, f64::from(u32::MAX));
    checks.range("tcp.retries2", f64::from(tuning.retries2), 1.0, 255.0);
}

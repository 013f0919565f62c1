//! The checks of `dtwn doctor`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use dtwn_node::learning::data::Cifar10;
use dtwn_sys::{sysctl, tun};
use nix::sys::resource::{Resource, getrlimit};

use super::{
    Check,
    probe::{Outcome, Place},
};
use crate::{
    agent_program, capacity,
    error::{Error, Result},
    machine::{self, APPARMOR_SWITCH},
    registry::Registry,
    session::own_program,
};

/// How long the child may take that tries namespaces.
const PROBE_PATIENCE: Duration = Duration::from_secs(20);
/// The largest network that is promised to work.
const NODES_MAX: u64 = 250;
/// Descriptors that a session holds per node.
const DESCRIPTORS_PER_NODE: u64 = 10;
/// A carrying capacity below which hardly any topology makes sense.
const CAPACITY_LOW_BPS: f64 = 100e6;
/// Reading a clock more often than this slows the medium down, ns.
const CLOCK_READ_SLOW_NS: f64 = 500.0;
/// What sets learning.data for all runs.
const DATA_VARIABLE: &str = "DTWN_LEARNING__DATA";
/// CIFAR-10's images for training and for test.
const OFFICIAL_IMAGES: (usize, usize) = (50_000, 10_000);

/// All checks, in the order in which they are shown.
pub fn all() -> Vec<Check> {
    let place = try_place();
    let mut checks = vec![];
    match &place {
        Ok(place) => {
            checks.push(namespaces(place));
            checks.push(apparmor(place));
            checks.push(tun_device(place));
            checks.push(settings(place));
            checks.push(slice(place));
        }
        Err(error) => {
            let (what, help) = in_words(error);
            checks.push(Check::problem("namespaces", what, help));
        }
    }
    checks.extend([registry(), limits(), cores(), clock()]);
    // A TUN and namespaces are what it measures with.
    let worked = |outcome: &Option<Outcome>| outcome.as_ref().is_some_and(Outcome::worked);
    if place.is_ok_and(|place| worked(&place.tun) && worked(&place.settings)) {
        checks.push(medium_capacity());
    }
    checks.extend([libtorch(), data(), tools()]);
    checks
}

/// What happened, and what to do about it.
pub fn in_words(error: &Error) -> (String, String) {
    let help = miette::Diagnostic::help(error).map(|help| help.to_string());
    (error.to_string(), help.unwrap_or_else(|| "DTWN_LOG=debug may tell more".into()))
}

fn try_place() -> Result<Place> {
    let mut command = Command::new(own_program()?);
    command.args(["__probe", "place"]);
    machine::ask(command, PROBE_PATIENCE)
}

fn namespaces(place: &Place) -> Check {
    let id = "namespaces";
    let tried = [&place.own, &place.network, &place.pid];
    for outcome in tried.into_iter().flatten() {
        if let Outcome::Failed { what, help } = outcome {
            return Check::problem(id, what, help);
        }
    }
    let kinds = if place.capable {
        "mount, PID and network ones, with the capabilities CAP_SYS_ADMIN and CAP_NET_ADMIN"
    } else {
        "user, mount, PID and network ones, without privilege"
    };
    match &place.pid {
        Some(Outcome::Worked { notes }) if !notes.is_empty() => Check::warning(
            id,
            format!("{kinds}; {}", notes.join("; ")),
            "a network runs, but its nodes see more of the host than they should; in a container, start it with \
             --privileged or unmask /proc",
        ),
        _ => Check::ok(id, kinds),
    }
}

fn apparmor(place: &Place) -> Check {
    let id = "apparmor";
    let restricted = sysctl::read(APPARMOR_SWITCH).is_ok_and(|value| value == "1");
    let failed = [&place.own, &place.network].into_iter().flatten().any(|outcome| !outcome.worked());
    match (restricted, place.capable) {
        (false, _) => Check::ok(id, "no restriction of unprivileged user namespaces"),
        (true, true) => {
            Check::ok(id, "restricts user namespaces of unprivileged users; this one is privileged")
        }
        (true, false) if failed => Check::problem(
            id,
            format!("restricts unprivileged user namespaces ({APPARMOR_SWITCH} = 1)"),
            format!("run as root, or allow them: sudo sysctl -w {APPARMOR_SWITCH}=0"),
        ),
        (true, false) => Check::ok(id, "restricts user namespaces, but lets this program have them"),
    }
}

fn tun_device(place: &Place) -> Check {
    let id = "tun";
    match (&place.tun, machine::check_tun()) {
        (Some(Outcome::Worked { .. }), _) => Check::ok(id, format!("{} makes devices", tun::DEVICE)),
        (Some(Outcome::Failed { what, help }), _) => Check::problem(id, what, help),
        (None, Err(error)) => {
            let (what, help) = in_words(&error);
            Check::problem(id, what, help)
        }
        (None, Ok(())) => {
            Check::ok(id, format!("{} opens; making one was not tried, for want of namespaces", tun::DEVICE))
        }
    }
}

fn settings(place: &Place) -> Check {
    let id = "tcp";
    let available = sysctl::read("net.ipv4.tcp_available_congestion_control").unwrap_or_default();
    let found = format!("routes and settings are taken; congestion controls: {available}");
    match &place.settings {
        Some(Outcome::Worked { notes }) if notes.is_empty() => Check::ok(id, found),
        Some(Outcome::Worked { notes }) => Check::warning(
            id,
            format!("{found}; {}", notes.join(", ")),
            "runs do without; the manifest of a run names what was in force",
        ),
        Some(Outcome::Failed { what, .. }) => Check::problem(
            id,
            format!("{what}; congestion controls: {available}"),
            "by default bbr is asked for, or cubic: `sudo modprobe tcp_bbr`, or name another as tcp.congctl, or set \
             tcp = \"kernel\"",
        ),
        None => Check::warning(id, "not tried", "mend namespaces and TUN first"),
    }
}

fn slice(place: &Place) -> Check {
    let id = "scheduler";
    match &place.slice {
        Some(Outcome::Worked { .. }) => Check::ok(id, "EEVDF grants the medium a slice of 0.2 ms"),
        Some(Outcome::Failed { .. }) => Check::warning(
            id,
            "no custom slices, which need Linux 6.12",
            "on busy cores packets come later than they should, which the verdict on fidelity tells; leave a \
             core idle",
        ),
        None => Check::warning(id, "not tried", "mend namespaces first"),
    }
}

fn registry() -> Check {
    match Registry::open().and_then(|registry| registry.sessions()) {
        Ok(sessions) if sessions.is_empty() => Check::ok("sessions", "none is running"),
        Ok(sessions) => {
            let names: Vec<_> = sessions.into_iter().map(|(name, _)| name).collect();
            Check::ok("sessions", format!("running: {}", names.join(", ")))
        }
        Err(error) => {
            let (what, help) = in_words(&error);
            Check::problem("sessions", what, help)
        }
    }
}

fn limits() -> Check {
    let id = "limits";
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard);
    let namespaces =
        sysctl::read("user.max_net_namespaces").ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    let nodes = (descriptors / DESCRIPTORS_PER_NODE).min(namespaces);
    let found = format!("{descriptors} descriptors a process, {namespaces} network namespaces");
    if nodes >= NODES_MAX {
        return Check::ok(id, found);
    }
    let found = format!("{found}: enough for about {nodes} nodes");
    let help = format!(
        "for {NODES_MAX} nodes raise them: `ulimit -Hn {}` as root, `sudo sysctl -w user.max_net_namespaces=1000`",
        NODES_MAX * DESCRIPTORS_PER_NODE
    );
    // An MBS, a BS and a group is the least that makes sense.
    if nodes < 3 { Check::problem(id, found, help) } else { Check::warning(id, found, help) }
}

fn cores() -> Check {
    let id = "cores";
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?");
    let memory = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available_gib(&text));
    let memory = memory.map_or(String::new(), |gib| format!(", {gib:.1} GiB of memory free"));
    let count = machine::cores();
    let found = format!("{count}, load {load}{memory}");
    if count >= 2 {
        return Check::ok(id, found);
    }
    Check::warning(
        id,
        found,
        "the medium shares the only core with all nodes: expect late packets, or raise the dilation",
    )
}

fn available_gib(meminfo: &str) -> Option<f64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1_048_576.0)
}

fn clock() -> Check {
    const READS: u32 = 10_000;
    let source = fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let source = source.map_or("unknown source".to_owned(), |text| text.trim().to_owned());
    let begun = Instant::now();
    for _ in 0..READS {
        std::hint::black_box(Instant::now());
    }
    let read_ns = begun.elapsed().as_nanos() as f64 / f64::from(READS);
    let found = format!("{source}, read in {read_ns:.0} ns");
    if read_ns < CLOCK_READ_SLOW_NS {
        return Check::ok("clock", found);
    }
    Check::warning(
        "clock",
        found,
        "a faster source, where /sys/devices/system/clocksource/clocksource0/available_clocksource lists tsc, lets \
         the medium carry more",
    )
}

fn medium_capacity() -> Check {
    let id = "capacity";
    match capacity::renewed() {
        Ok(found) if found.bits_per_s < CAPACITY_LOW_BPS => Check::warning(
            id,
            found.describe(),
            "that is little: stop what keeps the machine busy, or raise the dilation of topologies",
        ),
        Ok(found) if found.is_disturbed() => {
            Check::warning(id, found.describe(), "measure again when the machine is idle")
        }
        Ok(found) => Check::ok(id, found.describe()),
        Err(error) => {
            let (what, help) = in_words(&error);
            Check::problem(id, what, help)
        }
    }
}

fn libtorch() -> Check {
    let id = "libtorch";
    let needed = "needed only where nodes learn";
    let Some(agent) = agent_program::find() else {
        return Check::warning(
            id,
            format!("no dtwn-agent, neither beside dtwn nor on PATH ({needed})"),
            "run scripts/setup, then `cargo build --release -p dtwn-agents`; or name it in DTWN_AGENT",
        );
    };
    let said = match agent_program::version(&agent) {
        Ok(said) => said,
        Err(error) => {
            let (what, help) = in_words(&error);
            let help = format!("{help}; scripts/setup installs libtorch");
            return Check::warning(id, format!("{}: {what} ({needed})", agent.display()), help);
        }
    };
    let cuda = if said.cuda { "with" } else { "without" };
    let found = format!("{} {cuda} CUDA, by {}", said.torch_version, agent.display());
    if said.version == dtwn_proto::VERSION {
        return Check::ok(id, found);
    }
    Check::warning(
        id,
        format!("{found}, whose version is {} where dtwn's is {}", said.version, dtwn_proto::VERSION),
        "build both from the same sources",
    )
}

fn data() -> Check {
    let id = "data";
    match std::env::var_os(DATA_VARIABLE).map(PathBuf::from) {
        None => Check::ok(
            id,
            "synthetic, which needs no file; `scripts/cifar10 DIR` fetches CIFAR-10, and learning.data = \"DIR\" in a \
             topology has nodes learn from it",
        ),
        Some(dir) => images(&dir),
    }
}

/// Reads CIFAR-10 as nodes do, every label included.
fn images(dir: &Path) -> Check {
    let id = "data";
    match Cifar10::read(dir) {
        Ok(set) => {
            let (training, test) = (set.training.len(), set.test.len());
            let whole = if (training, test) == OFFICIAL_IMAGES { "all of" } else { "a part of" };
            Check::ok(id, format!("{whole} CIFAR-10 in {}: {training} + {test} images", dir.display()))
        }
        Err(error) => Check::warning(
            id,
            error.to_string(),
            format!("{DATA_VARIABLE} names this folder for every run; unset it, or `scripts/cifar10 DIR`"),
        ),
    }
}

fn tools() -> Check {
    const TOOLS: [&str; 5] = ["ping", "iperf3", "tcpdump", "tshark", "dot"];
    let (found, missing): (Vec<&str>, Vec<&str>) =
        TOOLS.into_iter().partition(|tool| machine::on_path(tool).is_some());
    let list = |tools: &[&str]| if tools.is_empty() { "none".into() } else { tools.join(", ") };
    Check::ok("tools", format!("all optional; found: {}; not found: {}", list(&found), list(&missing)))
}

#[cfg(test)]
mod tests {
    use super::{super::Status, *};

    fn failed() -> Option<Outcome> {
        Some(Outcome::Failed { what: "cannot".into(), help: "do this".into() })
    }

    fn worked(notes: &[&str]) -> Option<Outcome> {
        Some(Outcome::Worked { notes: notes.iter().map(|note| (*note).to_owned()).collect() })
    }

    #[test]
    fn what_failed_first_is_the_problem_and_the_rest_was_not_tried() {
        let place = Place { own: failed(), ..Place::default() };
        let check = namespaces(&place);
        assert_eq!((check.status, check.help.as_deref()), (Status::Problem, Some("do this")));
        assert_eq!(settings(&place).status, Status::Warning);
        assert_eq!(slice(&place).status, Status::Warning);
    }

    #[test]
    fn what_a_kernel_lacks_is_a_warning() {
        let place = Place {
            own: worked(&[]),
            network: worked(&[]),
            pid: worked(&["nodes see the host's /proc"]),
            settings: worked(&["this kernel has no net.ipv4.x"]),
            slice: failed(),
            ..Place::default()
        };
        for check in [namespaces(&place), settings(&place), slice(&place)] {
            assert_eq!(check.status, Status::Warning, "{check:?}");
        }
        assert!(settings(&place).found.contains("net.ipv4.x"));
    }

    #[test]
    fn images_are_counted_and_torn_files_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: usize| fs::write(dir.path().join(name), vec![0; bytes]).unwrap();
        (1..=5).for_each(|batch| write(&format!("data_batch_{batch}.bin"), 3073 * batch));
        assert!(images(dir.path()).found.contains("test_batch.bin"));
        write("test_batch.bin", 2 * 3073);
        let found = images(dir.path());
        assert!(found.status == Status::Ok && found.found.contains("a part of CIFAR-10"), "{found:?}");
        assert!(found.found.contains("15 + 2 images"), "{found:?}");
        write("data_batch_3.bin", 3072);
        let torn = images(dir.path());
        assert!(torn.status == Status::Warning && torn.found.contains("3072 bytes"), "{torn:?}");
    }

    #[test]
    fn free_memory_is_read() {
        assert_eq!(available_gib("MemTotal: 4 kB\nMemAvailable:  2097152 kB\n"), Some(2.0));
        assert_eq!(available_gib("MemTotal: 4 kB\n"), None);
    }
}

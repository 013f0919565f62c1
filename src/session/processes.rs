//! What the session knows of each node's process, and when it starts it again.

use std::{path::Path, time::Duration};

use dtwn_model::topology::Restart;
use dtwn_proto::{agent::ToAgent, event::Exit};
use tokio::{sync::mpsc, time::Instant};

/// First pause before a restart; each further crash doubles it.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest pause before a restart.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A process that lived this long starts the next backoff from the beginning.
const STABLE: Duration = Duration::from_secs(10);

/// Why a process that ends was going to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// It was not.
    No,
    /// Killed by hand: the restart policy decides.
    Killed,
    /// Asked to end, to be started again at once.
    Restart,
    /// Asked to end with the run.
    Stop,
}

/// A node's process.
#[derive(Debug)]
pub struct NodeProcess {
    /// Its process id on the host; `None` while there is none.
    pub pid: Option<i32>,
    /// Frames for the agent.
    pub to_agent: Option<mpsc::Sender<ToAgent>>,
    /// Grows whenever a process of this node ends or a pending restart is void, so that late news of it are told apart.
    pub boot: u64,
    /// How many processes this node has had.
    pub started_count: u32,
    /// Whether it has reported ready.
    pub ready: bool,
    /// Whether it is stopped.
    pub paused: bool,
    /// What it was told to do to its models, if it was told anything; it outlives the process.
    pub poison: Option<Option<String>>,
    /// Whether its end would be no surprise.
    pub expected: Expected,
    /// Bytes waiting in its send queues, as last reported.
    pub send_queue_bytes: u64,
    /// Whether it has reported what it may not.
    pub refused: bool,
    started: Instant,
    backoff: Duration,
}

impl Default for NodeProcess {
    fn default() -> Self {
        Self {
            pid: None,
            to_agent: None,
            boot: 0,
            started_count: 0,
            ready: false,
            paused: false,
            poison: None,
            expected: Expected::No,
            send_queue_bytes: 0,
            refused: false,
            started: Instant::now(),
            backoff: BACKOFF_MIN,
        }
    }
}

/// What follows a process's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it stays down.
    StayDown,
    /// It is started again after this pause.
    Restart(Duration),
    /// The run fails.
    Fail,
}

impl NodeProcess {
    /// Notes that a new process runs.
    pub fn begin(&mut self, pid: i32, to_agent: mpsc::Sender<ToAgent>) {
        self.pid = Some(pid);
        self.started_count += 1;
        self.to_agent = Some(to_agent);
        self.ready = false;
        self.paused = false;
        self.expected = Expected::No;
        self.send_queue_bytes = 0;
        self.refused = false;
        self.started = Instant::now();
    }

    /// Notes that the process has ended, and decides what follows.
    pub fn end(&mut self, exit: Exit, policy: Restart) -> Next {
        self.pid = None;
        self.to_agent = None;
        self.ready = false;
        self.paused = false;
        let failed = exit != Exit::Code(0);
        match self.expected {
            Expected::Stop => Next::StayDown,
            Expected::Restart => Next::Restart(Duration::ZERO),
            Expected::Killed if policy == Restart::Never => Next::StayDown,
            Expected::No if policy == Restart::Never => match failed {
                true => Next::Fail,
                false => Next::StayDown,
            },
            Expected::No | Expected::Killed => match failed || policy == Restart::Always {
                true => Next::Restart(self.next_backoff()),
                false => Next::StayDown,
            },
        }
    }

    fn next_backoff(&mut self) -> Duration {
        if self.started.elapsed() >= STABLE {
            self.backoff = BACKOFF_MIN;
        }
        let pause = self.backoff;
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        pause
    }
}

/// How a process ended, from what the kernel says.
pub fn exit_of(status: std::process::ExitStatus) -> Exit {
    use std::os::unix::process::ExitStatusExt;
    match status.code() {
        Some(code) => Exit::Code(code),
        None => Exit::Signal(status.signal().unwrap_or(0)),
    }
}

/// The last `count` lines of a log, reading no more than its last 16 KiB.
pub fn last_lines(path: &Path, count: usize) -> Vec<String> {
    use std::io::{Read, Seek, SeekFrom};
    const TAIL_BYTES: u64 = 16 * 1024;
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut tail = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut tail)?;
        Ok(tail)
    };
    let tail = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&tail);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect()
}

/// CPU seconds and resident bytes of a process, from `/proc`; `None` once it is gone.
pub fn usage(pid: i32) -> Option<(f64, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything: count from its end (proc_pid_stat(5)).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let pages: u64 = fields.get(21)?.parse().ok()?;
    Some((ticks as f64 / ticks_per_second(), pages * page_bytes()))
}

fn ticks_per_second() -> f64 {
    sysconf(nix::unistd::SysconfVar::CLK_TCK).unwrap_or(100) as f64
}

fn page_bytes() -> u64 {
    sysconf(nix::unistd::SysconfVar::PAGE_SIZE).unwrap_or(4096)
}

fn sysconf(variable: nix::unistd::SysconfVar) -> Option<u64> {
    nix::unistd::sysconf(variable).ok().flatten().and_then(|value| u64::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(expected: Expected, exit: Exit, policy: Restart) -> Next {
        NodeProcess { expected, ..NodeProcess::default() }.end(exit, policy)
    }

    #[tokio::test]
    async fn the_policy_decides_what_follows_a_crash() {
        let crash = Exit::Signal(11);
        assert_eq!(ended(Expected::No, crash, Restart::Never), Next::Fail);
        assert_eq!(ended(Expected::No, crash, Restart::OnFailure), Next::Restart(BACKOFF_MIN));
        assert_eq!(ended(Expected::No, Exit::Code(0), Restart::OnFailure), Next::StayDown);
        assert_eq!(ended(Expected::No, Exit::Code(0), Restart::Always), Next::Restart(BACKOFF_MIN));
    }

    #[tokio::test]
    async fn a_node_killed_by_hand_fails_no_run() {
        let killed = Exit::Signal(9);
        assert_eq!(ended(Expected::Killed, killed, Restart::Never), Next::StayDown);
        assert_eq!(ended(Expected::Killed, killed, Restart::OnFailure), Next::Restart(BACKOFF_MIN));
        assert_eq!(ended(Expected::Stop, killed, Restart::Always), Next::StayDown);
        assert_eq!(ended(Expected::Restart, Exit::Code(0), Restart::Never), Next::Restart(Duration::ZERO));
    }

    #[tokio::test]
    async fn crashes_in_a_row_pause_longer_up_to_a_bound() {
        let mut process = NodeProcess::default();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let Next::Restart(pause) = process.end(Exit::Signal(6), Restart::OnFailure) else { panic!() };
            pauses.push(pause);
        }
        assert!(pauses.windows(2).all(|two| two[0] <= two[1]));
        assert_eq!(*pauses.last().unwrap(), BACKOFF_MAX);
    }

    #[test]
    fn our_own_usage_is_read() {
        let (_, rss_bytes) = usage(std::process::id() as i32).unwrap();
        assert!(rss_bytes > 100_000, "{rss_bytes}");
        assert!(usage(-1).is_none());
    }

    #[test]
    fn the_last_lines_of_a_log() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "one\ntwo\nthree\n").unwrap();
        assert_eq!(last_lines(file.path(), 2), ["two", "three"]);
        assert!(last_lines(Path::new("/nonexistent"), 2).is_empty());
    }
}

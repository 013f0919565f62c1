//! The program under test, and the user that runs it.

use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use serde_json::Value;
use tempfile::TempDir;

use super::{PATIENCE, Session, wait_for};

/// A user with a home, a directory for output and the program.
pub struct Rig {
    /// `Some` when commands run as another user than the test.
    user: Option<u32>,
    program: PathBuf,
    dir: TempDir,
}

impl Rig {
    /// Runs the program as whoever runs the tests.
    pub fn as_caller() -> Self {
        if !geteuid().is_root() {
            need_tun();
        }
        let dir = tempfile::Builder::new().prefix("dtwn-test-").tempdir().unwrap();
        Self { user: None, program: env!("CARGO_BIN_EXE_dtwn").into(), dir }.with_topology()
    }

    /// Runs the program as a user without any privilege: of its own when the tests run as root, else as whoever runs them.
    pub fn unprivileged() -> Self {
        if !geteuid().is_root() {
            return Self::as_caller();
        }
        // What distributions ship; a minimal machine has the device for root alone.
        fs::set_permissions("/dev/net/tun", Permissions::from_mode(0o666))
            .expect("an unprivileged test needs /dev/net/tun: load the driver with `modprobe tun`");
        // A user for each test: what it sees of other sessions is nothing.
        let user = 20_000 + std::process::id() % 30_000;
        let dir = tempfile::Builder::new().prefix("dtwn-test-").tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        chown(dir.path(), Some(user), Some(user)).unwrap();
        // The build directory may be out of that user's reach.
        let program = dir.path().join("dtwn");
        fs::copy(env!("CARGO_BIN_EXE_dtwn"), &program).unwrap();
        Self { user: Some(user), program, dir }.with_topology()
    }

    fn with_topology(self) -> Self {
        let small = concat!(env!("CARGO_MANIFEST_DIR"), "/topologies/small.toml");
        let text = fs::read_to_string(small).unwrap();
        // Most tests ask for a network and not for models: bodies of their size do, and need no libtorch.
        let quick = text.replace("learner = \"torch\"", "learner = \"traffic\"");
        assert_ne!(text, quick);
        fs::write(self.topology(), quick).unwrap();
        self
    }

    /// A network of 4 BSs and 4 groups of 2 users.
    pub fn topology(&self) -> PathBuf {
        self.dir.path().join("small.toml")
    }

    /// A directory that the user may write to.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where runs are recorded.
    pub fn out(&self) -> PathBuf {
        self.dir.path().join("runs")
    }

    /// Whether what runs is somebody else than the test.
    pub fn is_other_user(&self) -> bool {
        self.user.is_some()
    }

    /// The user's id.
    pub fn uid(&self) -> u32 {
        self.user.unwrap_or_else(|| geteuid().as_raw())
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Where the user's sessions leave their locks and sockets.
    pub fn registry(&self) -> PathBuf {
        PathBuf::from(format!("/tmp/dtwn-{}", self.uid()))
    }

    /// Any program, as this user.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = match self.user {
            Some(user) => {
                let mut command = Command::new("setpriv");
                let user = user.to_string();
                command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.current_dir(self.path()).env("HOME", self.path()).env_remove("DTWN_LOG");
        command
    }

    /// `dtwn ARGUMENTS`, not started yet.
    pub fn dtwn<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = self.command(&self.program);
        command.args(arguments);
        command
    }

    /// Runs `dtwn ARGUMENTS` to its end.
    #[track_caller]
    pub fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Finished {
        Running::start(self.dtwn(arguments)).finish()
    }

    /// A name for a session that no other test uses.
    pub fn unique_name(&self) -> String {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// `dtwn up` of the small network under a new name, with more arguments; not started yet.
    pub fn up_command(&self, name: &str, arguments: &[&str]) -> Command {
        let topology = self.topology();
        let mut command = self.dtwn(["up", topology.to_str().unwrap(), "--name", name, "--out"]);
        command.arg(self.out()).args(["--set", "run.dilation=1"]).args(arguments);
        command
    }

    /// A session of the small network.
    #[track_caller]
    pub fn up(&self, arguments: &[&str]) -> Session<'_> {
        self.up_as(&self.unique_name(), arguments)
    }

    /// A session of the small network with a name.
    #[track_caller]
    pub fn up_as(&self, name: &str, arguments: &[&str]) -> Session<'_> {
        // A session that a killed test leaves behind ends by itself one day.
        let mut all = vec!["--detach"];
        if !arguments.contains(&"--duration") {
            all.extend(["--duration", "600s"]);
        }
        all.extend(arguments);
        Running::start(self.up_command(name, &all)).finish().ok();
        Session::find(self, name)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Only what the test's own user left; it is empty but for what a killed session leaves.
        if self.user.is_some() {
            let _ = fs::remove_dir_all(self.registry());
        }
    }
}

/// Without privileges, TUN devices must be open to everybody.
fn need_tun() {
    let opened = fs::File::options().read(true).write(true).open("/dev/net/tun");
    assert!(
        opened.is_ok(),
        "this test makes real networks: run it as root, or `sudo chmod 0666 /dev/net/tun`: {opened:?}"
    );
}

/// What comes out of a stream, read as it comes.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Collected {
    fn from(mut stream: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&bytes);
        let reader = std::thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(got @ 1..) = stream.read(&mut buffer) {
                shared.lock().unwrap().extend_from_slice(&buffer[..got]);
            }
        });
        Self { bytes, reader: Some(reader) }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    fn all(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.so_far()
    }
}

/// A command that runs, with what it prints so far.
pub struct Running {
    child: Child,
    what: String,
    stdout: Collected,
    stderr: Collected,
}

impl Running {
    /// Starts a command with nothing on its standard input.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::start_with(command)
    }

    /// Starts a command that finds `input` on its standard input.
    #[track_caller]
    pub fn start_with_input(mut command: Command, input: &[u8]) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Self::start_with(command);
        let mut stdin = running.child.stdin.take().unwrap();
        let input = input.to_vec();
        std::thread::spawn(move || stdin.write_all(&input));
        running
    }

    fn start_with(mut command: Command) -> Self {
        let what = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        let stdout = Collected::from(child.stdout.take().unwrap());
        let stderr = Collected::from(child.stderr.take().unwrap());
        Self { child, what, stdout, stderr }
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits until it has said something.
    #[track_caller]
    pub fn wait_to_say(&self, words: &str) {
        wait_for(&format!("{} to say {words:?}", self.what), || {
            self.stderr.so_far().contains(words).then_some(())
        });
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        self.stderr.so_far()
    }

    /// How much it has printed so far.
    pub fn printed_bytes(&self) -> usize {
        self.stdout.bytes.lock().unwrap().len()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > PATIENCE {
                let _ = self.child.kill();
                panic!("{} has not ended after {PATIENCE:?}", self.what);
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let (stdout, stderr) = (self.stdout.all(), self.stderr.all());
        Finished { what: self.what.clone(), status, stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    what: String,
    /// How.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Finished {
    /// Expects success.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.code(0)
    }

    /// Expects this exit code.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(
            self.status.code(),
            Some(code),
            "{} ended with {}\n{}\n{}",
            self.what,
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Expects words among what it said, however it broke the lines.
    #[track_caller]
    pub fn says(self, words: &str) -> Self {
        let flat = |text: &str| text.replace(|c: char| c.is_whitespace() || c == '│', "");
        assert!(
            flat(&self.stderr).contains(&flat(words)),
            "{} did not say {words:?}:\n{}",
            self.what,
            self.stderr
        );
        self
    }

    /// What it printed, as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{} printed no JSON: {error}\n{}", self.what, self.stdout))
    }
}

//! Load that keeps every core busy, as training on the same machine does.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::{Result, itself};

/// What runs beside a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Load {
    /// Nothing.
    Idle,
    /// One busy thread a core, at nice 10: well-behaved trainers.
    Niced,
    /// One busy thread a core, with the same priority as everything else.
    Busy,
}

/// The argument that makes a benchmark the load.
pub const BURN: &str = "__burn";

impl Load {
    /// As reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Niced => "niced load",
            Self::Busy => "busy load",
        }
    }

    /// Starts the load; it ends when the result is dropped.
    ///
    /// # Errors
    /// When processes cannot be started.
    pub fn start(self) -> Result<Burning> {
        let cores = std::thread::available_parallelism()?.get();
        let nice = match self {
            Self::Idle => return Ok(Burning(Vec::new())),
            Self::Niced => "10",
            Self::Busy => "0",
        };
        let mut burning = Burning(Vec::new());
        for _ in 0..cores {
            let mut command = Command::new("nice");
            command.args(["-n", nice]).arg(itself()?).arg(BURN);
            // The load holds a pipe of ours and ends when it closes, also when we are killed.
            burning.0.push(command.stdin(Stdio::piped()).spawn()?);
        }
        // The scheduler needs a moment to spread new processes over the cores.
        std::thread::sleep(Duration::from_millis(300));
        Ok(burning)
    }
}

/// Processes that burn CPU time.
pub struct Burning(Vec<Child>);

impl Drop for Burning {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Multiplies and adds over a buffer of the size of a small layer until standard input closes.
pub fn burn() -> Result<()> {
    std::thread::spawn(|| {
        let _ = std::io::Read::read(&mut std::io::stdin(), &mut [0]);
        std::process::exit(0);
    });
    let mut weights = vec![1.0_f32; 64 << 10];
    let mut step = 0.0_f32;
    loop {
        step = (step + 0.001) % 1.0;
        weights.iter_mut().for_each(|weight| *weight = weight.mul_add(0.999, step));
        std::hint::black_box(&mut weights);
    }
}

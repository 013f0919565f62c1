//! Settings of libtorch that hold for the whole process, and the choice of a device.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use dtwn_node::learning::ENVIRONMENT;
use tch::{Cuda, Device};

use crate::{Error, TORCH_VERSION};

/// Makes sure that all of [`ENVIRONMENT`] is set, by starting this program anew with it where it is not. What is set already stays.
///
/// A program cannot change its own environment soundly, and what matters here is read before `main`. Whoever starts a torch process
/// often sets the variables himself and saves the second start.
///
/// # Errors
///
/// When the program cannot be started again.
pub fn ensure_environment() -> io::Result<()> {
    let missing = ENVIRONMENT.into_iter().filter(|(name, _)| std::env::var_os(name).is_none());
    let missing: Vec<(&str, &str)> = missing.collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut arguments = std::env::args_os();
    let mut again = Command::new(std::env::current_exe()?);
    if let Some(own_name) = arguments.next() {
        again.arg0(own_name);
    }
    Err(again.args(arguments).envs(missing).exec())
}

/// Sets the threads that one operation may use (1 for a base station). To be called once, before the first tensor.
///
/// Operations never run beside each other in a base station, so the pool for that gets one thread.
///
/// # Errors
///
/// [`Error::TooSmall`] for fewer than one thread.
pub fn set_threads(threads: i32) -> Result<(), Error> {
    if threads < 1 {
        return Err(Error::TooSmall { name: "threads", value: threads.into(), min: 1 });
    }
    tch::set_num_threads(threads);
    tch::set_num_interop_threads(1);
    Ok(())
}

/// Where tensors live and are computed, as a person asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DeviceChoice {
    /// The processor.
    Cpu,
    /// The first CUDA device; an error where there is none.
    Cuda,
    /// The first CUDA device where there is one, else the processor.
    Auto,
}

impl DeviceChoice {
    /// The device meant.
    ///
    /// # Errors
    ///
    /// [`Error::NoCuda`] when CUDA was asked for and there is none.
    pub fn resolve(self) -> Result<Device, Error> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda if !Cuda::is_available() => Err(Error::NoCuda { version: TORCH_VERSION }),
            Self::Cuda => Ok(Device::Cuda(0)),
            Self::Auto => Ok(Device::cuda_if_available()),
        }
    }
}

/// `cpu` or `cuda:N`, the names that PyTorch uses.
#[must_use]
pub fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// Waits until all work handed to the device is done, so that a clock read afterwards has timed it.
pub fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(i64::try_from(index).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_threads_are_refused() {
        assert!(matches!(set_threads(0), Err(Error::TooSmall { name: "threads", value: 0, min: 1 })));
    }

    #[test]
    fn devices_are_named_as_pytorch_names_them() {
        assert_eq!(device_name(Device::Cpu), "cpu");
        assert_eq!(device_name(Device::Cuda(1)), "cuda:1");
    }

    #[test]
    fn auto_never_fails_and_cuda_fails_only_without_cuda() {
        assert!(DeviceChoice::Auto.resolve().is_ok());
        assert_eq!(DeviceChoice::Cuda.resolve().is_ok(), Cuda::is_available());
    }
}

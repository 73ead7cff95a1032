//! Which device computes, as people write it.

use std::{fmt, str::FromStr};

use candle_core::{Device, Result as TensorResult};
use thiserror::Error;

/// A device by its name: `cpu`, `cuda` or `cuda:1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ComputeDevice {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU, by its number among those that the driver shows to this process.
    Cuda {
        /// Counted from 0.
        ordinal: usize,
    },
}

/// A text that names no device.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("there is no device `{name}`; name cpu, cuda, or one of several GPUs as cuda:1")]
pub struct NoSuchDevice {
    name: String,
}

/// Why a device cannot be used.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// The program was built without what it takes.
    #[error(
        "{device} needs a program that was built with CUDA: `cargo build --release -p cli --features cuda`, where NVIDIA's \
         CUDA toolkit is installed"
    )]
    NotBuilt {
        /// What was asked for.
        device: ComputeDevice,
    },
    /// It is not there, or its driver refuses.
    #[error("failed to open the device {device}; `nvidia-smi` shows which GPUs there are, counted from 0")]
    Open {
        /// What was asked for.
        device: ComputeDevice,
        /// What the driver said.
        #[source]
        source: Box<candle_core::Error>,
    },
}

impl ComputeDevice {
    /// Refuses a device that this program was not built for.
    ///
    /// # Errors
    /// [`DeviceError::NotBuilt`].
    pub fn require_built(self) -> Result<(), DeviceError> {
        match self {
            Self::Cuda { .. } if !cfg!(feature = "cuda") => Err(DeviceError::NotBuilt { device: self }),
            Self::Cpu | Self::Cuda { .. } => Ok(()),
        }
    }

    /// Opens it.
    ///
    /// # Errors
    /// When this program was built without CUDA, or there is no such GPU.
    pub fn open(self) -> Result<Device, DeviceError> {
        self.require_built()?;
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda { ordinal } => {
                Device::new_cuda(ordinal).map_err(|source| DeviceError::Open { device: self, source: source.into() })
            }
        }
    }
}

impl FromStr for ComputeDevice {
    type Err = NoSuchDevice;

    fn from_str(name: &str) -> Result<Self, NoSuchDevice> {
        let no_such = || NoSuchDevice { name: name.to_owned() };
        match name.split_once(':') {
            None if name == "cpu" => Ok(Self::Cpu),
            None if name == "cuda" => Ok(Self::Cuda { ordinal: 0 }),
            Some(("cuda", ordinal)) => Ok(Self::Cuda { ordinal: ordinal.parse().map_err(|_| no_such())? }),
            _ => Err(no_such()),
        }
    }
}

impl fmt::Display for ComputeDevice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda { ordinal } => write!(formatter, "cuda:{ordinal}"),
        }
    }
}

/// What kind of device it is, the precision, and the model of a GPU: cuBLAS promises the same bits on the same architecture with the
/// same number of multiprocessors only. candle's operations on the CPU are not this crate's own kernels, and say so.
pub(super) fn class(device: &Device, precision: &str) -> TensorResult<String> {
    match device {
        Device::Cpu => Ok(format!("candle-cpu {precision}")),
        Device::Cuda(device) => Ok(format!("cuda {precision} {}", gpu_name(device)?)),
        Device::Metal(_) => candle_core::bail!("decoders on Metal are not tried"),
    }
}

#[cfg(feature = "cuda")]
fn gpu_name(device: &candle_core::CudaDevice) -> TensorResult<String> {
    device.cuda_stream().context().name().map_err(candle_core::Error::wrap)
}

#[cfg(not(feature = "cuda"))]
fn gpu_name(_: &candle_core::CudaDevice) -> TensorResult<String> {
    Err(candle_core::Error::NotCompiledWithCudaSupport)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_shown() {
        for (name, device) in [
            ("cpu", ComputeDevice::Cpu),
            ("cuda", ComputeDevice::Cuda { ordinal: 0 }),
            ("cuda:3", ComputeDevice::Cuda { ordinal: 3 }),
        ] {
            assert_eq!(name.parse(), Ok(device));
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        for name in ["", "CPU", "gpu", "cpu:0", "cuda:", "cuda:-1", "cuda:x", "metal"] {
            assert!(name.parse::<ComputeDevice>().unwrap_err().to_string().contains("cuda:1"), "{name}");
        }
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_program_without_cuda_says_how_to_build_it() {
        let error = ComputeDevice::Cuda { ordinal: 1 }.open().unwrap_err().to_string();
        assert!(error.starts_with("cuda:1 needs") && error.contains("--features cuda"), "{error}");
    }
}

//! A model in memory, on the device that computes.

use std::sync::Arc;

use anyhow::Context as _;
use model::{ComputeDevice, DeviceDecoder, Model};
use serving::{ServedModel, engine::builtin::BuiltinSettings, state::system_clock};

use crate::models;

/// A model that can be put up.
#[derive(Debug)]
pub(crate) enum Loaded {
    Cpu(Model),
    Device(Model<DeviceDecoder>),
}

impl Loaded {
    /// Loads a folder, `org/name`, or `bundled`.
    pub(crate) fn load(reference: &str, device: ComputeDevice) -> anyhow::Result<Self> {
        // Asked first: what is missing is told without the model's name before it.
        device.require_built()?;
        match device {
            ComputeDevice::Cpu => models::load(reference).map(Self::Cpu),
            ComputeDevice::Cuda { .. } => Model::load_on(reference, device)
                .map(Self::Device)
                .with_context(|| format!("failed to load the model {reference} onto {device}")),
        }
    }

    /// `Llama, 135 M parameters, 30 blocks`, and the device if it is not the CPU.
    pub(crate) fn summary(&self) -> String {
        match self {
            Self::Cpu(model) => models::summary(&model.config),
            Self::Device(model) => format!("{}, {}", models::summary(&model.config), model.decoder.class()),
        }
    }

    /// Puts it up, with the built-in engine.
    pub(crate) fn serve(self, name: impl Into<String>, settings: &BuiltinSettings) -> anyhow::Result<ServedModel> {
        let served = match self {
            Self::Cpu(model) => ServedModel::builtin(name, Arc::new(model), system_clock(), settings),
            Self::Device(model) => ServedModel::on_device(name, Arc::new(model), system_clock(), settings),
        };
        served.context("failed to start the engine")
    }
}

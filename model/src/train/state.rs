//! The state of a training run on disk: masters, means and the step count, enough to go on as if never stopped.

use std::{collections::HashMap, path::Path};

use candle_core::{Device, Tensor, safetensors};

use super::{Trainer, parameter::Parameter};
use crate::decoder::DecoderError;

impl Trainer<'_> {
    /// Writes the state as safetensors.
    pub fn save(&self, file: &Path) -> Result<(), DecoderError> {
        let mut tensors = HashMap::new();
        for (index, parameter) in self.trained().flat_map(|trained| trained.parameters()).enumerate() {
            let shape = parameter.value.shape();
            tensors.insert(format!("{index}.value"), parameter.value.clone());
            for (name, values) in [("mean", &parameter.mean), ("square", &parameter.square)] {
                tensors.insert(format!("{index}.{name}"), Tensor::from_slice(values, shape, &Device::Cpu)?);
            }
        }
        let steps = u32::try_from(self.steps).unwrap_or(u32::MAX);
        tensors.insert("steps".to_owned(), Tensor::new(&[steps], &Device::Cpu)?);
        Ok(safetensors::save(&tensors, file)?)
    }

    /// Reads a state that a trainer of the same model and scope wrote.
    pub fn restore(&mut self, file: &Path) -> Result<(), DecoderError> {
        let tensors = safetensors::load(file, &Device::Cpu)?;
        let get = |name: String| {
            let missing = || candle_core::Error::Msg(format!("training state lacks {name}"));
            tensors.get(&name).cloned().ok_or_else(missing)
        };
        let steps = get("steps".to_owned())?.to_vec1::<u32>()?;
        let mut index = 0;
        for trained in self.trained_mut() {
            for parameter in trained.parameters_mut() {
                let expected = parameter.value.shape().clone();
                let value = get(format!("{index}.value"))?;
                if *value.shape() != expected {
                    let found = value.shape();
                    let text = format!("training state {index} has shape {found:?}, the model wants {expected:?}");
                    return Err(candle_core::Error::Msg(text).into());
                }
                *parameter = Parameter {
                    value,
                    mean: get(format!("{index}.mean"))?.flatten_all()?.to_vec1()?,
                    square: get(format!("{index}.square"))?.flatten_all()?.to_vec1()?,
                    gradient: vec![0.0; expected.elem_count()],
                };
                index += 1;
            }
        }
        self.steps = steps.first().map_or(0, |steps| *steps as usize);
        Ok(())
    }
}

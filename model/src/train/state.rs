//! The state of a training run on disk: masters, means and the step count, enough to go on as if never stopped.

use std::{collections::HashMap, path::Path};

use candle_core::{Device, Shape, Tensor, bail, safetensors};

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
        let mut tensors = safetensors::load(file, &Device::Cpu)?;
        let steps = take(&mut tensors, "steps", &Shape::from(1_usize))?.to_vec1::<u32>()?;
        let mut index = 0;
        for trained in self.trained_mut() {
            for parameter in trained.parameters_mut() {
                let expected = parameter.value.shape().clone();
                let mut get = |part: &str| take(&mut tensors, &format!("{index}.{part}"), &expected);
                *parameter = Parameter {
                    value: get("value")?,
                    mean: get("mean")?.flatten_all()?.to_vec1()?,
                    square: get("square")?.flatten_all()?.to_vec1()?,
                    gradient: vec![0.0; expected.elem_count()],
                };
                index += 1;
            }
        }
        self.steps = steps.first().map_or(0, |steps| *steps as usize);
        match tensors.keys().min() {
            Some(name) => Err(candle_core::Error::Msg(format!("nothing is trained that would have {name}")).into()),
            None => Ok(()),
        }
    }
}

/// Takes a tensor of this shape out of a state.
fn take(tensors: &mut HashMap<String, Tensor>, name: &str, shape: &Shape) -> candle_core::Result<Tensor> {
    let Some(tensor) = tensors.remove(name) else { bail!("training state lacks {name}") };
    if tensor.shape() != shape {
        bail!("{name} of the training state has shape {:?}, the model wants {shape:?}", tensor.shape());
    }
    Ok(tensor)
}

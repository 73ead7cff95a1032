//! Rotary position embedding (arXiv 2104.09864) with the frequency scalings of `transformers/modeling_rope_utils.py`.

use crate::{
    config::{Rope, RopeScaling},
    kernel::rows::Rotation,
};

/// Radians per position of every pair of a head, slowest last.
pub(crate) fn frequencies(rope: &Rope, head_dim: usize) -> Vec<f32> {
    (0..head_dim / 2)
        .map(|pair| {
            let exponent = (2 * pair) as f32 / head_dim as f32;
            scale(1.0 / (rope.theta as f32).powf(exponent), &rope.scaling)
        })
        .collect()
}

fn scale(frequency: f32, scaling: &RopeScaling) -> f32 {
    match scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / *factor as f32,
        RopeScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_max_positions } => {
            let (factor, low, high) = (*factor as f32, *low_frequency_factor as f32, *high_frequency_factor as f32);
            let context = *original_max_positions as f32;
            let wavelength = std::f32::consts::TAU / frequency;
            if wavelength < context / high {
                frequency
            } else if wavelength > context / low {
                frequency / factor
            } else {
                let smooth = (context / wavelength - low) / (high - low);
                (1.0 - smooth) * frequency / factor + smooth * frequency
            }
        }
    }
}

/// The angles of rows at these positions.
pub(crate) fn rotation(frequencies: &[f32], positions: impl Iterator<Item = usize>) -> Rotation {
    let (cosines, sines) = positions
        .flat_map(|position| frequencies.iter().map(move |frequency| position as f32 * frequency))
        .map(|angle| (angle.cos(), angle.sin()))
        .unzip();
    Rotation { cosines, sines }
}

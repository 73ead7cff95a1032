//! The derivative of a block, derived by hand from [`Block::forward`]: candle's own would keep every intermediate tensor
//! and add each gradient into a fresh zero (a third of the speed).

use candle_core::Result;
use rayon::prelude::*;

use super::parameter::Trained;
use crate::{
    decoder::{
        Pack,
        block::{Block, BlockOf, Shape, Tape, select},
    },
    kernel::{
        View,
        attention::{Backward, Visible},
        product::{add_gradient_of_weight, gradient_of_input},
        rows::{Rotation, add, add_rms_norm_gradient, rms_norm, rotate, swiglu, swiglu_gradient},
    },
};

/// What a block's derivative needs besides the tape.
pub(crate) struct Context<'a> {
    pub(crate) shape: &'a Shape,
    pub(crate) pack: &'a Pack,
    pub(crate) rotation: &'a Rotation,
    pub(crate) window: Option<usize>,
    /// Rows that were asked in this block, ascending; all without.
    pub(crate) queries: Option<&'a [usize]>,
    /// Whether anything below this block is trained.
    pub(crate) needs_input: bool,
}

/// Adds the gradients of a block's trained weights and returns that of its input (rows, hidden), empty if not needed.
pub(crate) fn block(
    context: &Context<'_>,
    weights: &Block,
    trained: &mut BlockOf<Trained>,
    tape: &Tape,
    dout: Vec<f32>,
) -> Result<Vec<f32>> {
    let (shape, queries) = (context.shape, context.queries);
    let mut dmiddle = dout;
    feed_forward(shape, weights, trained, tape, &mut dmiddle)?;

    let width = shape.heads.queries * shape.heads.dim;
    let attended = View::of(&tape.attended)?;
    let dattended =
        projection(&dmiddle, attended.f32()?, &weights.output, &mut trained.output, &mut trained.output_bias, width)?;
    let (mut dquery, mut dkey_value) = attention(context, tape, &dattended)?;
    undo_placement(context, weights, trained, tape, &mut dquery, &mut dkey_value)?;

    let input = View::of(&tape.input)?;
    let norm = View::of(&weights.attention_norm)?;
    let normed = rms_norm(input.f32()?, norm.f32()?, shape.epsilon);
    let normed = candle_core::Tensor::from_vec(normed, tape.input.shape(), tape.input.device())?;
    let asked = select(&normed, queries)?;
    let hidden = shape.hidden;
    let dasked = projection(
        &dquery,
        View::of(&asked)?.f32()?,
        &weights.query,
        &mut trained.query,
        &mut trained.query_bias,
        hidden,
    )?;
    let mut dnormed = projection(
        &dkey_value,
        View::of(&normed)?.f32()?,
        &weights.key_value,
        &mut trained.key_value,
        &mut trained.key_value_bias,
        hidden,
    )?;
    scatter_add(&mut dnormed, &dasked, queries, hidden);
    let mut dinput = vec![0.0; dnormed.len()];
    let dnorm = trained.attention_norm.gradient_mut();
    if !context.needs_input && dnorm.is_none() {
        return Ok(Vec::new());
    }
    scatter_add(&mut dinput, &dmiddle, queries, hidden);
    add_rms_norm_gradient(&mut dinput, dnorm, &dnormed, input.f32()?, norm.f32()?, shape.epsilon);
    Ok(dinput)
}

/// Through `middle + down(swiglu(gate_up(norm(middle))))`: turns the gradient of the output into that of `middle`.
fn feed_forward(
    shape: &Shape,
    weights: &Block,
    trained: &mut BlockOf<Trained>,
    tape: &Tape,
    d: &mut [f32],
) -> Result<()> {
    let (hidden, wide) = (shape.hidden, shape.intermediate);
    let gate_up = View::of(&tape.gate_up)?;
    let active = swiglu(gate_up.f32()?, wide);
    let dactive = projection(d, &active, &weights.down, &mut trained.down, &mut trained.down_bias, wide)?;
    let dgate_up = swiglu_gradient(gate_up.f32()?, &dactive, wide);
    let middle = View::of(&tape.middle)?;
    let norm = View::of(&weights.mlp_norm)?;
    let normed = rms_norm(middle.f32()?, norm.f32()?, shape.epsilon);
    let dnormed =
        projection(&dgate_up, &normed, &weights.gate_up, &mut trained.gate_up, &mut trained.gate_up_bias, hidden)?;
    add_rms_norm_gradient(d, trained.mlp_norm.gradient_mut(), &dnormed, middle.f32()?, norm.f32()?, shape.epsilon);
    Ok(())
}

/// Through `x wᵀ + b`: adds the gradients of weight and bias, returns that of `x`, whose rows are `width` wide.
fn projection(
    dy: &[f32],
    x: &[f32],
    weight: &candle_core::Tensor,
    trained: &mut Trained,
    bias: &mut Option<Trained>,
    width: usize,
) -> Result<Vec<f32>> {
    let n = weight.dim(0)?;
    if let Some(gradient) = trained.gradient_mut() {
        add_gradient_of_weight(gradient, dy, x, n, width);
    }
    if let Some(gradient) = bias.as_mut().and_then(Trained::gradient_mut) {
        for row in dy.chunks_exact(n) {
            add(gradient, row);
        }
    }
    Ok(gradient_of_input(dy, View::of(weight)?.weights()?, n, width))
}

/// `to[rows[i]] += from[i]`, or row by row without `rows`.
fn scatter_add(to: &mut [f32], from: &[f32], rows: Option<&[usize]>, width: usize) {
    match rows {
        None => add(to, from),
        Some(rows) => {
            for (row, from) in rows.iter().zip(from.chunks_exact(width)) {
                add(&mut to[row * width..(row + 1) * width], from);
            }
        }
    }
}

/// Through attention: gradients of queries and of key-value rows.
///
/// One task a sequence. What sequences pass back into a prefix that they share is added up afterwards, in their order,
/// so that the sum does not depend on who was first.
fn attention(context: &Context<'_>, tape: &Tape, dattended: &[f32]) -> Result<(Vec<f32>, Vec<f32>)> {
    let heads = context.shape.heads;
    let (q_width, kv_width) = (heads.queries * heads.dim, heads.key_value_width());
    let (query, key_value) = (View::of(&tape.query)?, View::of(&tape.key_value)?);
    let (query, key_value) = (query.f32()?, key_value.f32()?);
    let spans = context.pack.spans();
    let asked = |span: &std::ops::Range<usize>| match context.queries {
        None => span.clone(),
        Some(rows) => rows.partition_point(|row| *row < span.start)..rows.partition_point(|row| *row < span.end),
    };
    let parts: Vec<_> = spans
        .par_iter()
        .map(|span| {
            let asked = asked(&span.rows);
            let mut dquery = vec![0.0; asked.len() * q_width];
            let mut down = vec![0.0; span.rows.len() * kv_width];
            let mut dprefix = vec![0.0; span.prefix.len() * kv_width];
            for (index, dq) in asked.zip(dquery.chunks_exact_mut(q_width)) {
                let row = context.queries.map_or(index, |rows| rows[index]);
                let [prefix, own] = context.pack.visible(row, context.window);
                let within = |range: &std::ops::Range<usize>, start: usize| {
                    (range.start - start) * kv_width..(range.end - start) * kv_width
                };
                Backward {
                    q: &query[index * q_width..(index + 1) * q_width],
                    dout: &dattended[index * q_width..(index + 1) * q_width],
                    heads,
                    visible: Visible { runs: [&prefix, &own].map(|rows| &key_value[within(rows, 0)]) },
                    dq,
                    dvisible: [
                        &mut dprefix[within(&prefix, span.prefix.start)],
                        &mut down[within(&own, span.rows.start)],
                    ],
                }
                .run();
            }
            (dquery, down, dprefix)
        })
        .collect();
    let mut dquery = Vec::with_capacity(query.len());
    let mut dkey_value = Vec::with_capacity(key_value.len());
    for (span, (dq, down, dprefix)) in spans.iter().zip(parts) {
        dquery.extend_from_slice(&dq);
        dkey_value.extend_from_slice(&down);
        let prefix = &mut dkey_value[span.prefix.start * kv_width..span.prefix.end * kv_width];
        add(prefix, &dprefix);
    }
    Ok((dquery, dkey_value))
}

/// Through the rotation and, where the family has them, the norms of heads.
fn undo_placement(
    context: &Context<'_>,
    weights: &Block,
    trained: &mut BlockOf<Trained>,
    tape: &Tape,
    dquery: &mut [f32],
    dkey_value: &mut [f32],
) -> Result<()> {
    let heads = context.shape.heads;
    let (q_width, kv_width) = (heads.queries * heads.dim, heads.key_value_width());
    let back = context.rotation.inverse();
    rotate(dquery, q_width, heads.queries, heads.dim, &back, context.queries);
    rotate(dkey_value, kv_width, heads.keys, heads.dim, &back, None);
    let Some((query, key_value)) = &tape.before_norm else { return Ok(()) };
    for (d, before, width, count, norm, trained) in [
        (dquery, query, q_width, heads.queries, &weights.query_norm, &mut trained.query_norm),
        (dkey_value, key_value, kv_width, heads.keys, &weights.key_norm, &mut trained.key_norm),
    ] {
        let (Some(norm), Some(trained)) = (norm, trained) else { continue };
        let (norm, before) = (View::of(norm)?, View::of(before)?);
        let (norm, before) = (norm.f32()?, before.f32()?);
        let mut dnorm = trained.gradient_mut();
        for (d, before) in d.chunks_exact_mut(width).zip(before.chunks_exact(width)) {
            let part = count * heads.dim;
            let mut through = vec![0.0; part];
            let epsilon = context.shape.epsilon;
            add_rms_norm_gradient(&mut through, dnorm.as_deref_mut(), &d[..part], &before[..part], norm, epsilon);
            d[..part].copy_from_slice(&through);
        }
    }
    Ok(())
}

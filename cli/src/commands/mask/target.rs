//! `mask build --target-bytes`: the shares to keep, from how large the student's weights may be in the end.

use super::Built;
use crate::args::{MaskBuildArgs, Spread, Written};
use crate::error::{CliError, Exit, Result};
use crate::mask_file::MaskFile;
use crate::progress::Bar;
use crate::{models, output};
use bytesize::ByteSize;
use serde::Serialize;
use uspx_colony::Share;
use uspx_domain::{ExportFormat, Mask, UnitKind};
use uspx_export::cut::Sizes;
use uspx_export::planned::{Fit, Planned};
use uspx_model::chat::ChatFiles;
use uspx_runtime::Shutdown;

/// What was asked for, and what comes of it.
#[derive(Serialize)]
pub(super) struct Target {
    format: &'static str,
    /// Bytes that the weights may take.
    bytes_at_most: u64,
    /// Bytes that they will take.
    bytes: u64,
    /// Bytes that they would take with nothing cut.
    bytes_whole: u64,
    heads: usize,
    channels: usize,
    #[serde(skip)]
    whole: Sizes,
}

/// The sizes that fit, of the kinds that are to be cut.
pub(super) fn chosen(args: &MaskBuildArgs, most: ByteSize) -> Result<Target> {
    check(args)?;
    models::check_there(&args.common.model)?;
    let (format, name) = match args.target_format {
        Written::FourBit(format) => (Some(format), format.row().name),
        Written::Floats => (None, Written::FLOATS),
    };
    let planned = Planned::open(&args.common.model, format)?;
    let (whole, bytes_at_most) = (planned.whole(), most.as_u64());
    let bytes_whole = planned.bytes(whole)?;
    let (sizes, bytes) = match planned.largest(&args.units, bytes_at_most)? {
        Fit::Whole => (whole, bytes_whole),
        Fit::Cut(sizes, bytes) => (sizes, bytes),
        Fit::None(sizes, bytes) => return Err(too_small((whole, sizes), bytes, (format, most))),
    };
    let Sizes { heads, channels, .. } = sizes;
    Ok(Target { format: name, bytes_at_most, bytes, bytes_whole, heads, channels, whole })
}

fn check(args: &MaskBuildArgs) -> Result<()> {
    let usage = |what: &str, help: &str| Err(CliError::new(Exit::Usage, what).help(help));
    if args.spread != Spread::Uniform {
        return usage(
            "--target-bytes finds sizes that are the same in every layer",
            "give --spread uniform too",
        );
    }
    let (all, known) = (&args.units, [UnitKind::Head, UnitKind::Channel]);
    match all.iter().find(|kind| !known.contains(kind)) {
        Some(kind) => usage(
            &format!("--target-bytes does not know how many {kind}s make how many bytes"),
            "it is about a dense model: --units head,channel",
        ),
        None => Ok(()),
    }
}

/// Not even the smallest student fits.
fn too_small(
    (whole, least): (Sizes, Sizes),
    bytes: u64,
    (format, most): (Option<ExportFormat>, ByteSize),
) -> CliError {
    let what = format!(
        "the smallest student that these kinds of unit leave, {}, still has weights of {bytes} bytes: more than {}",
        kept(whole, (least.heads, least.channels)),
        most.as_u64()
    );
    let smaller = if format.is_some() { "" } else { " or choose --target-format gptq," };
    CliError::new(Exit::BadInput, what).help(format!(
        "allow at least that,{smaller} name both kinds (--units head,channel), or drop whole layers first: --spread layers"
    ))
}

fn kept(whole: Sizes, (heads, channels): (usize, usize)) -> String {
    format!(
        "{heads} of {} heads and {channels} of {} channels in each layer",
        whole.heads, whole.channels
    )
}

impl Target {
    /// The kinds to cut, each with the share to keep.
    pub(super) fn shares(&self, args: &MaskBuildArgs) -> Vec<(UnitKind, Share)> {
        let of = |kept: usize, all: usize| Share::nearest(kept as f64 / all.max(1) as f64);
        let share = |kind: &UnitKind| match kind {
            UnitKind::Head => (*kind, of(self.heads, self.whole.heads)),
            _ => (*kind, of(self.channels, self.whole.channels)),
        };
        args.units.iter().map(share).collect()
    }

    /// Whether nothing needs to go.
    pub(super) fn is_whole(&self) -> bool {
        (self.heads, self.channels) == (self.whole.heads, self.whole.channels)
    }

    /// What it comes to, for a person.
    pub(super) fn tell(&self) {
        let Self { format, bytes, bytes_at_most, bytes_whole, .. } = self;
        let text = if self.is_whole() {
            format!(
                "as {format} all of its weights take {bytes} bytes, which are no more than {bytes_at_most}: nothing is cut"
            )
        } else {
            format!(
                "as {format}, {} take {bytes} bytes of at most {bytes_at_most}; all of them would take {bytes_whole}",
                kept(self.whole, (self.heads, self.channels))
            )
        };
        output::remark_paragraph(&text);
    }
}

/// The mask that cuts nothing: nothing has to be measured for it.
pub(super) fn nothing_cut(args: &MaskBuildArgs, shutdown: &Shutdown) -> Result<Built> {
    let folder = &args.common.model;
    let bar = Bar::new("whose mask?", args.common.run.json, shutdown);
    let digests = uspx_model::digests(folder, &bar)?;
    bar.finish();
    let model = uspx_model::fingerprint_of(&digests, &ChatFiles::read(folder)?)?;
    let file = MaskFile { mask: Mask::everything(model), saes: Vec::new() };
    Ok(Built::of(file))
}

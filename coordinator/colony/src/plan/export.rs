//! Proposes an export of the best adapter in every format.

use super::{Offer, Piece, Proposer, View, distil};
use crate::state::Stage;
use crate::{Dice, Purpose, Split};
use uspx_domain::{ExportFormat, Work};

pub(super) struct Export;

impl Proposer for Export {
    fn stage(&self) -> Stage {
        Stage::Export
    }

    fn offer(&self, view: &View<'_>) -> Offer {
        if view.was_opened(Stage::Export) {
            return Offer::Nothing;
        }
        let Some((_, adapter, _)) = view.state.results.best_adapter() else {
            return Offer::Blocked(view.because("no training succeeded", &["distil", "part"]));
        };
        let (calibration, finish) = (calibration(view), view.campaign.finish.passes);
        let labels = if finish > 0 { distil::labels(view, Split::Train) } else { Vec::new() };
        let work = |format: &ExportFormat| {
            let (format, adapter) = (*format, Some(adapter));
            let (calibration, labels) = (calibration.clone(), labels.clone());
            let export = uspx_domain::Export { adapter, calibration, finish, labels, format };
            view.student(Purpose::Contender(format.into()), Work::Export(export))
        };
        ExportFormat::ALL.iter().filter_map(work).collect::<Vec<Piece>>().into()
    }
}

/// Train prompts that calibrate the quantiser.
fn calibration(view: &View<'_>) -> Vec<u32> {
    let mut prompts = view.campaign.split(Split::Train);
    Dice::new(view.campaign.seed, "calibration", 0).shuffle(&mut prompts);
    prompts.truncate(view.campaign.distil.calibration as usize);
    prompts
}

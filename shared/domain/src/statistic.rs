//! What is measured about a unit, one row each. Checks, trails, scores, the command line and JSON
//! read the rows.

use crate::UnitKind::{self, Channel, Expert, ExpertChannel, Feature, Head};

/// What there is to know of a statistic. Values are sums over a prompt's response positions.
#[derive(Debug)]
pub struct StatisticRow {
    /// Its name, on the wire, in the ledger and in JSON.
    pub name: &'static str,
    /// The kinds of unit that it is about.
    pub kinds: &'static [UnitKind],
    /// Whether a value may be negative.
    pub signed: bool,
    /// Whether it is the effect that a mask is drawn by, which cheap scores only predict.
    pub is_effect: bool,
    /// Its place among the cheap scores that rank units before effects are known: the least is
    /// the best. None where it ranks nothing.
    pub rank: Option<u8>,
    /// The names by which `mask build --method` ranks units by it.
    pub methods: &'static [ScoreMethod],
}

/// A way to rank units by a statistic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScoreMethod {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is, in a line of help.
    pub help: &'static str,
    /// The statistic that the sums are divided by; none leaves them as they are.
    pub per: Option<Statistic>,
}

/// A statistic: a reference to its row.
#[derive(Clone, Copy)]
pub struct Statistic(&'static StatisticRow);

/// A row with the values that most have.
const PLAIN: StatisticRow = StatisticRow {
    name: "",
    kinds: &[],
    signed: false,
    is_effect: false,
    rank: None,
    methods: &[],
};

const fn method(name: &'static str, help: &'static str) -> ScoreMethod {
    ScoreMethod { name, help, per: None }
}

table! {
    Statistic(StatisticRow), "a statistic not known here";
    /// Positions routed to an expert.
    COUNT: StatisticRow {
        name: "count",
        kinds: &[Expert],
        rank: Some(5),
        methods: &[method("frequency", "How often it is routed to")],
        ..PLAIN
    },
    /// Sum of an expert's gate weights g.
    GATE_MASS: StatisticRow { name: "gate_mass", kinds: &[Expert], rank: Some(4), ..PLAIN },
    /// Sum of g‖f‖, the gate times the norm of the expert's output (REAP's saliency before it is
    /// divided by the count; Lasby et al. 2025).
    SALIENCY: StatisticRow {
        name: "saliency",
        kinds: &[Expert],
        rank: Some(3),
        methods: &[
            method("saliency", "Sum of gate times output norm"),
            ScoreMethod {
                name: "reap",
                help: "REAP: gate times output norm, per routed token",
                per: Some(Statistic::COUNT),
            },
        ],
        ..PLAIN
    },
    /// Sum of g‖f‖·max(0, 1 − cos(h, h + MoE(h))) (EASY-EP; Dong et al. 2025).
    EASY_EP: StatisticRow {
        name: "easy_ep",
        kinds: &[Expert],
        rank: Some(0),
        methods: &[method("easy-ep", "EASY-EP: that, times how far the layer turns the stream")],
        ..PLAIN
    },
    /// Sum of the norm of a head's output.
    HEAD_NORM: StatisticRow {
        name: "head_norm",
        kinds: &[Head],
        rank: Some(2),
        methods: &[method("norm", "Output norm")],
        ..PLAIN
    },
    /// Sum of how far an expert's router logit lies above that of the first expert not chosen.
    MARGIN: StatisticRow { name: "margin", kinds: &[Expert], ..PLAIN },
    /// Sum of the squared norm of a head's output.
    HEAD_ENERGY: StatisticRow { name: "head_energy", kinds: &[Head], ..PLAIN },
    /// Sum of a channel's activation, made positive.
    CHANNEL_SIZE: StatisticRow {
        name: "channel_size",
        kinds: &[Channel, ExpertChannel],
        methods: &[method("magnitude", "Sum of its activations, made positive")],
        ..PLAIN
    },
    /// Sum of a channel's squared activation.
    CHANNEL_ENERGY: StatisticRow {
        name: "channel_energy",
        kinds: &[Channel, ExpertChannel],
        methods: &[method("energy", "Sum of its squared activations")],
        ..PLAIN
    },
    /// Attribution patching: first-order effect of the baseline on the loss, in nats (Nanda 2023).
    ATP: StatisticRow {
        name: "atp",
        kinds: &[Expert, Head, Channel, ExpertChannel, Feature],
        signed: true,
        ..PLAIN
    },
    /// The same, made positive per token before it is summed.
    ATP_ABS: StatisticRow {
        name: "atp_abs",
        kinds: &[Expert, Head, Channel, ExpertChannel, Feature],
        rank: Some(1),
        methods: &[method("atp", "Attribution patching, made positive per token")],
        ..PLAIN
    },
    /// Attribution with the mean gradient along a path of inputs, in nats (Hanna et al. 2024).
    EAP_IG: StatisticRow {
        name: "eap_ig",
        kinds: &[Expert, Head, Channel, Feature],
        signed: true,
        ..PLAIN
    },
    /// The same, made positive per token before it is summed.
    EAP_IG_ABS: StatisticRow {
        name: "eap_ig_abs",
        kinds: &[Expert, Head, Channel, Feature],
        methods: &[method("eap-ig", "Attribution along a path of inputs, per token")],
        ..PLAIN
    },
    /// Attribution with gradients that leave out one layer each, their mean, in nats (GradDrop;
    /// Kramár et al. 2024).
    ATP_STAR: StatisticRow { name: "atp_star", kinds: &[Expert, Head], signed: true, ..PLAIN },
    /// The same, made positive per token and gradient before it is summed.
    ATP_STAR_ABS: StatisticRow {
        name: "atp_star_abs",
        kinds: &[Expert, Head],
        methods: &[method("atp-star", "Attribution by gradients less a layer each, per token")],
        ..PLAIN
    },
    /// Relevance patching: the baseline's effect by coefficients of relevance, in nats (Jafari et al.
    /// 2025).
    RELP: StatisticRow {
        name: "relp",
        kinds: &[Expert, Head, Channel, ExpertChannel],
        signed: true,
        ..PLAIN
    },
    /// The same, made positive per token before it is summed.
    RELP_ABS: StatisticRow {
        name: "relp_abs",
        kinds: &[Expert, Head, Channel, ExpertChannel],
        methods: &[method("relp", "Relevance patching, made positive per token")],
        ..PLAIN
    },
    /// First-order effect on the loss of banning an expert: the router takes the next one and
    /// normalises the gates anew, in nats.
    REROUTE: StatisticRow { name: "reroute", kinds: &[Expert], signed: true, ..PLAIN },
    /// The same, made positive per token before it is summed.
    REROUTE_ABS: StatisticRow {
        name: "reroute_abs",
        kinds: &[Expert],
        methods: &[method("reroute", "First-order effect of a ban with its re-routing, per token")],
        ..PLAIN
    },
    /// The same by the mean gradient along a path of inputs.
    REROUTE_IG: StatisticRow { name: "reroute_ig", kinds: &[Expert], signed: true, ..PLAIN },
    /// The same, made positive per token before it is summed.
    REROUTE_IG_ABS: StatisticRow {
        name: "reroute_ig_abs",
        kinds: &[Expert],
        methods: &[method("reroute-ig", "The same along a path of inputs, per token")],
        ..PLAIN
    },
    /// Exact ablation: change of the prompt's summed loss when the unit is cut, in nats.
    EXACT: StatisticRow {
        name: "exact",
        kinds: &[Expert, Head, Channel, ExpertChannel, Feature],
        signed: true,
        is_effect: true,
        methods: &[method("exact", "Change of the loss when the unit is cut")],
        ..PLAIN
    },
}

impl Statistic {
    /// The cheap scores, best first.
    pub fn cheap() -> Vec<Self> {
        let mut ranked: Vec<Self> =
            Self::ALL.iter().copied().filter(|s| s.0.rank.is_some()).collect();
        ranked.sort_by_key(|s| s.0.rank);
        ranked
    }

    /// Every way to rank units, with its statistic.
    pub fn methods() -> impl Iterator<Item = (Self, &'static ScoreMethod)> {
        Self::ALL.iter().flat_map(|s| s.0.methods.iter().map(move |m| (*s, m)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_differ_and_are_read_again() {
        let names: BTreeSet<&str> = Statistic::ALL.iter().map(|s| s.name()).collect();
        assert_eq!(names.len(), Statistic::ALL.len());
        for statistic in Statistic::ALL {
            let written = serde_json::to_value(statistic).unwrap();
            assert_eq!(serde_json::from_value::<Statistic>(written).unwrap(), *statistic);
        }
        let methods: BTreeSet<&str> = Statistic::methods().map(|(_, m)| m.name).collect();
        assert_eq!(methods.len(), Statistic::methods().count());
        assert!(serde_json::from_str::<Statistic>("\"secret\"").is_err());
    }

    #[test]
    fn cheap_scores_stand_in_the_order_of_their_ranks() {
        let names: Vec<&str> = Statistic::cheap().iter().map(|s| s.name()).collect();
        assert_eq!(names, ["easy_ep", "atp_abs", "head_norm", "saliency", "gate_mass", "count"]);
    }
}

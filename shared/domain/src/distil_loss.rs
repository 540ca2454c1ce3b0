//! The losses that a student can be trained by, one row each. Recipes, wire and command line read
//! the rows; `worker/distill/src/losses/` has the mathematics, one file each.

/// What there is to know of a loss.
#[derive(Debug)]
pub struct DistilLossRow {
    /// Its name, on the wire, in the ledger, on the command line and in recipes.
    pub name: &'static str,
    /// What it does, in a line of help.
    pub help: &'static str,
}

/// What a student learns of its teacher, beside the answer's text: a reference to a row.
#[derive(Clone, Copy)]
pub struct DistilLoss(&'static DistilLossRow);

table! {
    DistilLoss(DistilLossRow), "this is not the name of a distillation loss known here";
    /// Cross-entropy against the teacher's distribution, carried over by bytes to the student's
    /// tokens.
    HYBRID: DistilLossRow {
        name: "hybrid",
        help: "the teacher's distribution, carried over by bytes to the student's tokens",
    },
    /// Approximate likelihood matching (Minixhofer, Vulić and Ponti 2025, arXiv 2503.20083).
    ALM: DistilLossRow {
        name: "alm",
        help: "the teacher's likelihood of each stretch of bytes that both tokenizers end (ALM)",
    },
    /// General on-policy logit distillation's hybrid loss (Patiño et al. 2025, TRL), on given
    /// answers.
    GOLD: DistilLossRow {
        name: "gold",
        help: "tokens that both know by KL, others by their sorted probabilities (TRL's GOLD)",
    },
}

impl DistilLoss {
    /// Whether it is the one that recipes without a name mean.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for DistilLoss {
    fn default() -> Self {
        Self::HYBRID
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DistilRecipe;

    const OLD: &str = r#"{"rank":4,"alpha":8.0,"epochs":2,"learning_rate":0.5,"batch_tokens":64,"teacher_weight":0.5,"seed":1}"#;

    #[test]
    fn names_differ_and_are_read_again() {
        let names: std::collections::BTreeSet<&str> =
            DistilLoss::ALL.iter().map(|loss| loss.name()).collect();
        assert_eq!(names.len(), DistilLoss::ALL.len());
        for loss in DistilLoss::ALL {
            let written = serde_json::to_value(loss).unwrap();
            assert_eq!(serde_json::from_value::<DistilLoss>(written).unwrap(), *loss);
        }
        assert!(serde_json::from_str::<DistilLoss>("\"secret\"").is_err());
    }

    #[test]
    fn a_recipe_without_a_loss_is_read_and_written_as_before_there_were_several() {
        let old: DistilRecipe = serde_json::from_str(OLD).unwrap();
        assert_eq!(old.loss, DistilLoss::HYBRID);
        assert_eq!(serde_json::to_string(&old).unwrap(), OLD);
        let named = DistilRecipe { loss: DistilLoss::ALM, ..old };
        let written = serde_json::to_string(&named).unwrap();
        assert!(written.ends_with(r#","loss":"alm"}"#), "{written}");
        assert_eq!(serde_json::from_str::<DistilRecipe>(&written).unwrap(), named);
        let unknown = written.replace("alm", "secret");
        let error = serde_json::from_str::<DistilRecipe>(&unknown).unwrap_err().to_string();
        assert!(error.contains("not the name of a distillation loss known here"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

//! What a campaign measures, keeps, judges and trains. Its defaults suit a small teacher.

use super::Usual::{Is, Open};

super::rows! {
    "campaign.name" Coordinator [""] --"" Open { then: "campaign", example: r#""evening""# };
    "Its name: another name is another campaign"
    "campaign.seed" Coordinator [""] --"" Is("0");
    "Seed of every draw"
    "campaign.teacher" Coordinator [""] --"" Open { then: "the only mixture of experts that a worker holds", example: r#""b438c30f3122750cf17f0444029b7a839a447467dde11c5db1331a3c9bade9f3""# };
    "The teacher's fingerprint (uspx probe trace --json says it)"
    "campaign.student" Coordinator [""] --"" Open { then: "the only dense model that a worker holds", example: r#""703a6f9ab5ba6cc7e0b4a4a9ff4e3f9d1a2a42d4d5f7c0b3a8d8ab6a0a7f1c22""# };
    "The base student's fingerprint"

    "campaign.stop_at_mask" Coordinator [""] --"" Is("false");
    "Whether no student is wanted: the campaign ends with its mask"

    "campaign.probe.trace_batch" Coordinator ["prompts"] --"" Open { then: "as large as the workers' speed asks, 250 where that is not known", example: "250" };
    "Prompts of a trace task"
    "campaign.probe.patch_prompts" Coordinator ["prompts"] --"" Is("256");
    "Prompts that attribution patching looks at; 0 leaves it out"
    "campaign.probe.patch_batch" Coordinator ["prompts"] --"" Open { then: "as large as the workers' speed asks, 64 where that is not known", example: "64" };
    "Prompts of a patch task"
    "campaign.probe.baseline" Coordinator [""] --"" Is(r#""mean""#);
    "What replaces a unit in attribution patching: zero, mean or resample"
    "campaign.probe.exact_pairs" Coordinator ["pairs of prompt and unit"] --"" Is("16384");
    "Exact runs in all"
    "campaign.probe.exact_least" Coordinator ["pairs of prompt and unit"] --"" Is("8192");
    "Exact runs before a stable mask may end the exploration"
    "campaign.probe.round_pairs" Coordinator ["pairs of prompt and unit"] --"" Is("2048");
    "Exact runs of a round, which is an epoch, where campaign.mind.rounds is 0"
    "campaign.probe.uniform" Coordinator ["share, 0 to 1"] --"" Is("0.6");
    "Of a round, what is spent on all units alike where campaign.mind.rounds is 0; the rest follows the pheromone"
    "campaign.probe.round_prompts" Coordinator ["prompts"] --"" Is("32");
    "Prompts that a round's pheromone-led part looks at, where campaign.mind.rounds is 0"
    "campaign.probe.units_per_task" Coordinator ["units"] --"" Open { then: "as large as the workers' speed asks, 16 where that is not known", example: "16" };
    "Units of an exact task"
    "campaign.probe.candidates" Coordinator ["masks"] --"" Is("4");
    "Candidate masks of a round where campaign.mind.rounds is 0"
    "campaign.probe.candidate_errors" Coordinator ["standard errors"] --"" Is("2.0");
    "By how much a candidate mask must beat the current one to replace it"
    "campaign.probe.evaporation" Coordinator ["share, 0 to 1"] --"" Is("0.98");
    "What one epoch leaves of earlier evidence"

    "campaign.mind.rounds" Coordinator ["rounds"] --"" Is("4");
    "Rounds of exact runs that go where they tell most, after a first one on all units alike, and scores that correct few exact runs by cheap ones of all prompts; 0: rounds by the pheromone"
    "campaign.mind.first" Coordinator ["share, 0 to 1"] --"" Is("0.4");
    "Of the exact runs, what that first round takes"
    "campaign.mind.memory" Coordinator ["prompts"] --"" Is("4000");
    "Newer train prompts after which an older one counts half; 0: age does not matter"

    "campaign.mask.kind" Coordinator [""] --"" Is(r#""expert""#);
    "The kind of unit that the mask cuts"
    "campaign.mask.keep" Coordinator ["share, 0 to 1"] --"" Is("0.5");
    "What is kept"
    "campaign.mask.rule" Coordinator [""] --"" Is(r#""global""#);
    "How the budget is spread over layers: global or uniform"
    "campaign.mask.hysteresis" Coordinator ["standard errors"] --"" Is("1.0");
    "By how much an interval must clear the cut before its unit swaps"
    "campaign.mask.stable" Coordinator ["Jaccard overlap, 0 to 1"] --"" Is("0.97");
    "Overlap of consecutive versions that counts as stable"
    "campaign.mask.stable_versions" Coordinator ["versions"] --"" Is("2");
    "Consecutive stable versions that end the exploration"
    "campaign.mask.bootstrap" Coordinator ["draws"] --"" Is("100");
    "Draws of the bootstrap that says how sure a unit is"

    "campaign.judge.batch" Coordinator ["prompts"] --"" Open { then: "as large as the workers' speed asks, 125 where that is not known", example: "125" };
    "Prompts of a judging task"
    "campaign.judge.masks_per_task" Coordinator ["masks"] --"" Is("7");
    "Masks of a judging task"
    "campaign.judge.random_masks" Coordinator ["masks"] --"" Is("20");
    "Random masks of the same size and rule, to compare with"
    "campaign.judge.curve" Coordinator ["shares, 0 to 1"] --"" Is("[0.1, 0.25, 0.4, 0.5, 0.6, 0.75]");
    "Shares pruned, for the curve"
    "campaign.judge.label_rise" Coordinator ["nats per response token"] --"" Is("0.05");
    "The most that the labelling teacher's validation loss may rise"

    "campaign.sae.layers" Coordinator ["layers, from 0"] --"" Is("[]");
    "Layers of the teacher that get a sparse autoencoder each"
    "campaign.sae.recipe.kind" Coordinator [""] --"" Is(r#""topk""#);
    "How a token's features are chosen: topk or batchtopk"
    "campaign.sae.recipe.features" Coordinator ["features"] --"" Is("1024");
    "How many features an autoencoder has"
    "campaign.sae.recipe.k" Coordinator ["features"] --"" Is("8");
    "Active features of a token"
    "campaign.sae.recipe.batch" Coordinator ["tokens"] --"" Is("1024");
    "Tokens of a training step, at most"
    "campaign.sae.recipe.buffer" Coordinator ["tokens"] --"" Is("32768");
    "Tokens whose activations are held and mixed together"
    "campaign.sae.recipe.rate" Coordinator [""] --"" Is("0.005");
    "Peak learning rate; beyond 1024 features, less with the root of their number suits"
    "campaign.sae.recipe.dead_after" Coordinator ["tokens"] --"" Is("100000");
    "A feature that was not active for so long is dead, and learns from what the others leave over"
    "campaign.sae.recipe.auxiliary" Coordinator [""] --"" Is("0.03125");
    "Weight of the loss that dead features learn by"
    "campaign.sae.recipe.skip" Coordinator ["tokens"] --"" Is("0");
    "Tokens at the beginning of every prompt that are left out; features can be cut only where none are"
    "campaign.sae.recipe.seed" Coordinator [""] --"" Is("0");
    "Seed of all that is random in it"
    "campaign.sae.recipe.epochs" Coordinator ["passes"] --"" Is("10");
    "Passes over the training prompts"
    "campaign.sae.recipe.steps" Coordinator ["steps"] --"" Open { then: "as many as the passes take", example: "5000" };
    "Steps, instead of so many passes"

    "campaign.dream.rounds" Coordinator ["rounds"] --"" Is("8");
    "How often each training prompt gives rise to a new one that the teacher makes up and answers, to learn from beside yours"

    "campaign.answers.target" Coordinator [""] --"" Is(r#""reference""#);
    "Whose answer is learned of a prompt that has a reference: `\"reference\"`, `\"teacher\"`, or `\"both\"`"
    "campaign.answers.samples" Coordinator ["answers"] --"" Is("0");
    "Answers to each prompt sampled from the teacher, learned beside it where they say something else"
    "campaign.answers.temperature" Coordinator [""] --"" Is("1.0");
    "Temperature of these: at 1 they are the teacher's own distribution"
    "campaign.answers.min_consistency" Coordinator ["share, 0 to 1"] --"" Open { then: "answers are learned whatever the samples say", example: "0.5" };
    "The least share of the samples that give an answer which is learned"
    "campaign.answers.max_reference_nats" Coordinator ["nats per byte"] --"" Open { then: "references are learned whatever the teacher thinks of them", example: "2.0" };
    "References that the teacher finds unlikelier than this are not learned"

    "campaign.distil.label_batch" Coordinator ["prompts"] --"" Open { then: "as large as the workers' speed asks, 125 where that is not known", example: "125" };
    "Prompts of a label task"
    "campaign.distil.top_k" Coordinator ["tokens"] --"" Is("32");
    "Teacher probabilities kept for each token"
    "campaign.distil.max_new_tokens" Coordinator ["tokens"] --"" Is("64");
    "Bound on an answer that the teacher writes itself"
    "campaign.distil.max_reasoning_tokens" Coordinator ["tokens"] --"" Is("1024");
    "Bound on the reasoning before it; a prompt that is not done then is left out"
    "campaign.distil.recipes" Coordinator [""] --"" Is("[\
{ rank = 0, alpha = 0.0, epochs = 6, learning_rate = 0.0, batch_tokens = 1024, teacher_weight = 0.0, seed = 0 }, \
{ rank = 0, alpha = 0.0, epochs = 6, learning_rate = 0.0, batch_tokens = 1024, teacher_weight = 0.5, seed = 0 }]");
    "One training each, by `loss = \"hybrid\"` (usual), `\"alm\"` or `\"gold\"`; the best on validation goes on. Rank, alpha and rate 0: what suits the student; passes: the most"
    "campaign.distil.nf4" Coordinator [""] --"" Is("false");
    "Hold the student in NF4 while it learns (QLoRA): an eighth of the memory, slower; the way for a student whose floats fit on no machine"
    "campaign.distil.fresh" Coordinator ["share, 0 to 1"] --"" Is("0.1");
    "Train prompts that must be new since the last student before another is made, as a share of those that it learned from"
    "campaign.distil.hours_a_day" Coordinator ["machine hours"] --"" Is("0.0");
    "What labels, trainings, exports and judgements of students may take of a day (UTC), all workers together; what is begun is finished; 0: no limit"
    "campaign.distil.calibration" Coordinator ["prompts"] --"" Is("512");
    "Training prompts that calibrate the quantiser, and that the finish learns from"
    "campaign.distil.judge_batch" Coordinator ["prompts"] --"" Open { then: "as large as the workers' speed asks, 250 where that is not known", example: "250" };
    "Prompts of a task that judges a student"
    "campaign.distil.resamples" Coordinator ["draws"] --"" Is("2000");
    "Resamples of the gate's bootstrap"
    "campaign.distil.tag_prompts" Coordinator ["prompts"] --"" Is("30");
    "Prompts that a tag needs before the gate looks at it"
    "campaign.distil.tag_worse" Coordinator ["share, 0 to 1"] --"" Is("0.02");
    "How much worse a tag may become"

    "campaign.together.machines" Coordinator ["machines"] --"" Is("1");
    "Machines that train one adapter together, as far as so many hold the student; 1: each recipe is one machine's"
    "campaign.together.steps" Coordinator ["steps"] --"" Is("30");
    "Steps of a machine between two exchanges, about"

    "campaign.finish.passes" Coordinator ["passes"] --"" Is("4");
    "Passes of the quantisation-aware finish over the calibration's prompts and all that was labelled to train, which recovers what 4 bits cost; 0 leaves it out"

    "campaign.trust.ahead" Coordinator ["tasks"] --"" Is("2");
    "Tasks ahead of a worker"
    "campaign.trust.attempts" Coordinator ["attempts"] --"" Is("3");
    "Failed attempts after which a task is given up"
    "campaign.trust.refusals" Coordinator ["answers"] --"" Is("3");
    "Refused answers after which a worker is quarantined"
    "campaign.trust.duplicates" Coordinator ["share, 0 to 0.1"] --"" Is("0.05");
    "Tasks issued twice to compare"
    "campaign.trust.relative" Coordinator ["share of the larger value"] --"" Is("0.01");
    "What two machines may differ by"
    "campaign.trust.absolute" Coordinator [""] --"" Is("0.01");
    "And how much they may differ by beside that"
    "campaign.trust.outliers" Coordinator ["share, 0 to 1"] --"" Is("0.02");
    "Values that may differ by more: a router's tie falls either way"
}

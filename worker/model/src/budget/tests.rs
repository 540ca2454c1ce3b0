//! What fits is held, what does not is streamed or refused.

use super::*;

/// gpt-oss-20b.
fn large() -> Demands {
    let mut config: serde_json::Value =
        serde_json::from_str(include_str!("../../../../cli/assets/nano/teacher/config.json"))
            .unwrap();
    for (key, value) in [
        ("hidden_size", 2880),
        ("intermediate_size", 2880),
        ("num_attention_heads", 64),
        ("num_key_value_heads", 8),
        ("head_dim", 64),
        ("num_local_experts", 32),
        ("num_experts_per_tok", 4),
        ("experts_per_token", 4),
        ("vocab_size", 201_088),
    ] {
        config[key] = value.into();
    }
    Demands::new(&ModelConfig::from_json(&config.to_string()).unwrap(), 13 << 30)
}

#[test]
fn what_fits_is_held_and_what_does_not_is_streamed() {
    let plan = |gib: u64, stream| {
        large().plan(gib << 30, Workload::Forward, stream, &Device::Cpu).unwrap()
    };
    assert_eq!(plan(24, false).holding, Holding::Stored);
    assert_eq!(plan(24, true).holding, Holding::Streamed);
    let (four, two) = (plan(4, false), plan(2, false));
    assert_eq!((four.holding, two.holding), (Holding::Streamed, Holding::Streamed));
    assert!(four.batch_tokens > two.batch_tokens && two.batch_tokens >= 1024, "{four} {two}");
}

#[test]
fn a_budget_below_the_least_is_refused_with_what_is_needed() {
    let error =
        large().plan(200 << 20, Workload::Backward, false, &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("MiB") && error.contains("--memory"), "{error}");
}

#[test]
fn what_needs_floats_takes_more_the_more_it_keeps_and_is_refused_as_a_matter_of_memory() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano/student");
    let demands = Demands::of_folder(&folder).unwrap();
    let plan = |budget, work| demands.plan(budget, work, false, &Device::Cpu);
    let works = [
        Workload::Forward,
        Workload::Adapted,
        Workload::FourBit,
        Workload::Training { batch_tokens: 1024, rank: 64 },
        Workload::Export { batch_tokens: 4096, finish: true },
        Workload::TrainingNf4 { batch_tokens: 1024, rank: 64, width: 4 },
    ];
    let weights = works.map(|work| plan(8 << 30, work).unwrap().weights);
    assert!(weights[0] <= weights[1] && weights[1] == weights[2], "{weights:?}");
    assert!(weights[2] < weights[3].min(weights[4]), "{weights:?}");
    for work in works {
        assert_eq!(plan(8 << 30, work).unwrap().budget, 8 << 30);
        let Err(ModelError::Budget { needed, given, .. }) = plan(BASE, work) else {
            panic!("{work:?} fits into nothing")
        };
        assert!(given == BASE && needed > given);
        plan(needed, work).unwrap();
    }
}

#[test]
fn an_export_is_finished_where_there_is_memory_for_it_and_made_without_where_not() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano/student");
    let demands = Demands::of_folder(&folder).unwrap();
    let plan = |budget, finish| {
        let work = Workload::Export { batch_tokens: 4096, finish };
        demands.plan(budget, work, false, &Device::Cpu)
    };
    let (without, with) = (plan(8 << 30, false).unwrap(), plan(8 << 30, true).unwrap());
    assert!(with.finishes && !without.finishes && with.weights > without.weights);
    assert_eq!((with.holding, without.holding), (Holding::Floats, Holding::Streamed));
    let enough = BASE + with.weights;
    assert!(plan(enough, true).unwrap().finishes);
    assert_eq!(plan(enough - 1, true).unwrap(), plan(enough - 1, false).unwrap());
    let Err(ModelError::Budget { needed, .. }) = plan(BASE, true) else { panic!("nothing fits") };
    assert!(plan(needed, true).is_ok() && plan(needed - 1, true).is_err());
    let work = Workload::Export { batch_tokens: 4096, finish: true };
    let streamed = demands.plan(8 << 30, work, true, &Device::Cpu).unwrap();
    assert_eq!(streamed, without, "asked to stream, it has no finish");
}

/// Of Llama-3.1-8B's shapes.
fn of_8b(layers: usize) -> Demands {
    let mut config: serde_json::Value =
        serde_json::from_str(include_str!("../../../../cli/assets/nano/student/config.json"))
            .unwrap();
    for (key, value) in [
        ("hidden_size", 4096),
        ("intermediate_size", 14_336),
        ("num_hidden_layers", layers),
        ("num_attention_heads", 32),
        ("num_key_value_heads", 8),
        ("head_dim", 128),
        ("vocab_size", 128_256),
    ] {
        config[key] = value.into();
    }
    config["tie_word_embeddings"] = false.into();
    let config = ModelConfig::from_json(&config.to_string()).unwrap();
    Demands::new(&config, 16_060_522_496 / 32 * layers as u64)
}

#[test]
fn an_export_of_the_8b_takes_3_gib_whatever_its_depth() {
    let on_two = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let plan = |layers, gib: u64, batch_tokens| {
        let work = Workload::Export { batch_tokens, finish: true };
        let demands = of_8b(layers);
        on_two.install(|| demands.plan(gib << 30, work, false, &Device::Cpu)).unwrap()
    };
    let (two, whole) = (plan(2, 3, 4096), plan(32, 3, 4096));
    assert_eq!(two, whole);
    assert!(!whole.finishes && whole.holding == Holding::Streamed);
    assert!((64..4096).contains(&whole.batch_tokens), "{whole}");
    // The Hessian of 14,336 inputs alone.
    assert!(whole.weights > 8 * 14_336 * 14_336, "{whole}");
    // On 8 GB there is room for whole batches, and for no more than were asked for.
    assert_eq!((plan(32, 7, 4096).batch_tokens, plan(32, 7, 512).batch_tokens), (4096, 512));
    // Floats are no Hessian's matter.
    assert!(plan(32, 2, 0).weights < whole.weights / 2);
}

#[test]
fn the_8b_is_judged_on_8_gb_from_its_file_or_in_4_bits() {
    let plan = |gib: u64, work| of_8b(32).plan(gib << 30, work, false, &Device::Cpu).unwrap();
    let (adapted, four_bits) = (plan(7, Workload::Adapted), plan(7, Workload::FourBit));
    assert_eq!((adapted.holding, four_bits.holding), (Holding::Streamed, Holding::Stored));
    // 6.98 billion weights in 4.5 bits, and two tables of .53 billion values in 16.
    let files = 6_979_321_856 * 9 / 16 + 2 * 2 * 525_336_576;
    assert!((files..files + (1 << 29)).contains(&four_bits.weights), "{four_bits}");
    for work in [Workload::Adapted, Workload::FourBit] {
        assert_eq!(plan(48, work).holding, Holding::Floats);
    }
}

/// Of the shapes of a model of 1.5 billion parameters.
#[test]
fn training_in_nf4_takes_a_fraction_of_what_floats_take() {
    let mut config: serde_json::Value =
        serde_json::from_str(include_str!("../../../../cli/assets/nano/student/config.json"))
            .unwrap();
    for (key, value) in [
        ("hidden_size", 2048),
        ("intermediate_size", 8192),
        ("num_hidden_layers", 24),
        ("num_attention_heads", 32),
        ("num_key_value_heads", 8),
        ("head_dim", 64),
    ] {
        config[key] = value.into();
    }
    let demands = Demands::new(&ModelConfig::from_json(&config.to_string()).unwrap(), 3 << 30);
    let batch_tokens = 512;
    let needed = |work| demands.plan(64 << 30, work, false, &Device::Cpu).unwrap().weights;
    let floats = needed(Workload::Training { batch_tokens, rank: 16 });
    let nf4 = needed(Workload::TrainingNf4 { batch_tokens, rank: 16, width: 4 });
    assert!(5 * nf4 < floats, "{nf4} {floats}");
    let higher = needed(Workload::Training { batch_tokens, rank: 64 });
    assert!(higher > floats + floats / 50, "{higher} {floats}");
    let error =
        demands.plan(4 << 30, Workload::Training { batch_tokens, rank: 16 }, false, &Device::Cpu);
    assert!(matches!(error, Err(ModelError::Budget { what: TRAINED, .. })));
    let plan = demands.plan(
        4 << 30,
        Workload::TrainingNf4 { batch_tokens, rank: 16, width: 4 },
        false,
        &Device::Cpu,
    );
    assert_eq!(plan.unwrap().holding, Holding::Nf4);
}

/// The floats that are counted are those that are there.
#[test]
fn floats_are_counted_as_they_are_loaded() {
    for which in ["student", "teacher"] {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/nano").join(which);
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let config = ModelConfig::open(&folder).unwrap();
        let counted = Demands::of_folder(&folder).unwrap().floats as f64 / 4.0;
        let values: usize = checkpoint
            .names()
            .iter()
            .map(|name| {
                let (dtype, shape, _) = checkpoint.stored(name).unwrap();
                let values: usize = shape.iter().product();
                // Two 4-bit codes a byte; scales are no weights.
                match (dtype, name.ends_with("_scales")) {
                    (safetensors::tensor::Dtype::U8, true) => 0,
                    (safetensors::tensor::Dtype::U8, false) => 2 * values,
                    _ => values,
                }
            })
            .sum();
        let share = counted / values as f64;
        assert!((0.95..1.05).contains(&share), "{which}: {share} {config:?}");
    }
}

#[test]
fn a_plan_on_less_memory_is_as_good_only_where_little_is_lost() {
    let plan = |gib: u64| large().plan(gib << 30, Workload::Forward, false, &Device::Cpu).unwrap();
    assert!(plan(12).is_as_good_as(&plan(12)) && plan(11).is_as_good_as(&plan(12)));
    assert!(!plan(2).is_as_good_as(&plan(12)));
    assert!(!plan(12).is_as_good_as(&plan(24)), "streamed is not as good as held");
    assert!(plan(2).idle() < 200 << 20 && plan(24).idle() > 12 << 30);
}

/// A sparse autoencoder, say: it takes from the batches, then from the weights' place.
#[test]
fn what_is_beside_the_model_is_planned_for() {
    let beside = |gib: u64, token: u64| {
        let held = Bytes { fixed: 0, by_width: (gib << 30) / 2880 };
        large().with(Beside { held, token: Bytes { fixed: token, by_width: 0 } })
    };
    let plan = |demands: Demands, gib: u64| {
        demands.plan(gib << 30, Workload::Forward, false, &Device::Cpu)
    };
    let (alone, with) = (plan(large(), 4).unwrap(), plan(beside(2, 0), 4).unwrap());
    assert!(with.batch_tokens < alone.batch_tokens, "{with} {alone}");
    assert_eq!(with.weights, alone.weights);
    let wider = plan(beside(0, 100_000), 4).unwrap();
    assert!(wider.batch_tokens < alone.batch_tokens, "{wider} {alone}");
    assert_eq!(plan(beside(1, 0), 16).unwrap().holding, Holding::Stored);
    assert_eq!(plan(beside(4, 0), 16).unwrap().holding, Holding::Streamed);
    assert!(matches!(plan(beside(4, 0), 4), Err(ModelError::Budget { .. })));
    let several: Beside = [Beside::NOTHING; 3].into_iter().sum();
    assert_eq!(several, Beside::NOTHING);
}

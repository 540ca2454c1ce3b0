//! Dense models without heads and channels.

use super::*;

/// The heads that each layer keeps.
type Lists<'a> = &'a [&'a [u32]];

/// Keeps these heads and channels of each layer.
fn halved(folder: &Path, heads: Lists<'_>, channels: impl Fn(u32) -> bool) -> Mask {
    let (model, shape) = (fingerprint(folder).unwrap(), ModelConfig::open(folder).unwrap().shape());
    let mut mask = Mask::everything(model);
    let lists = heads.iter().map(|l| l.to_vec()).collect();
    mask.keep.0.insert(UnitKind::Head, lists);
    let kept = |width: u32| (0..width).filter(|index| channels(*index)).collect();
    let lists = shape.widths(UnitKind::Channel).into_iter().map(kept).collect();
    mask.keep.0.insert(UnitKind::Channel, lists);
    mask
}

fn sizes(report: &CutReport) -> [usize; 3] {
    match report.kept {
        Kept::Dense { now: Sizes { heads, kv_heads, channels, .. }, .. } => {
            [heads, kv_heads, channels]
        }
        ref other => panic!("{other:?}"),
    }
}

/// f16, bf16 and f32; with biases and norms of heads; windows; one KV head, one for each head, and
/// some that go with all of theirs.
#[test]
fn every_dense_architecture_without_its_cut_heads_and_channels_is_the_masked_one() {
    let cases: [(&str, Lists<'_>, [usize; 2]); 10] = [
        ("llama2", &[&[0, 3], &[1, 2]], [2, 2]),
        ("llama-bias", &[&[1, 2, 5], &[0, 3, 4]], [3, 3]),
        ("llama31", &[&[1, 2], &[0, 3]], [2, 2]),
        ("llama32-tied", &[&[0, 1], &[2, 3]], [2, 1]),
        ("mistral-full", &[&[0, 1, 3], &[1, 2, 3]], [3, 1]),
        ("mistral-window", &[&[0, 2, 5], &[1, 3, 4], &[1, 2, 4]], [3, 3]),
        ("qwen2", &[&[0, 2, 3, 4], &[1, 2, 4, 5]], [4, 2]),
        ("qwen2", &[&[0, 1, 2], &[3, 4, 5]], [3, 1]),
        ("qwen3", &[&[1, 2], &[0, 2]], [2, 2]),
        ("qwen3-window", &[&[1, 3], &[0, 2], &[0, 3]], [2, 2]),
    ];
    for (name, heads, [left, kv]) in cases {
        let folder = architecture(name);
        let mask = halved(folder.path(), heads, |at| at % 3 != 1);
        let (out, report) = same_as(folder.path(), &mask);
        let channels = mask.lists(UnitKind::Channel).unwrap()[0].len();
        assert_eq!(sizes(&report), [left, kv, channels], "{name}");
        // Cut once more, it is like any other.
        let again = halved(out.path(), &vec![&[0u32][..]; heads.len()], |at| at >= 4);
        assert_eq!(sizes(&same_as(out.path(), &again).1), [1, 1, channels - 4], "{name}");
    }
}

/// Element by element: row `i` of what is written is row `rows[i]` of the source, and so its
/// columns.
fn same_elements(
    name: &str,
    (before, after): (&Tensors, &Tensors),
    [rows, columns]: [&[usize]; 2],
) {
    let ((_, dtype, shape, bytes), (_, dtype_now, shape_now, bytes_now)) =
        (&before[name], &after[name]);
    let wide = shape.get(1).copied().unwrap_or(1);
    let size = bytes.len() / shape.iter().product::<usize>();
    assert_eq!((dtype, shape_now[0]), (dtype_now, rows.len()), "{name}");
    assert_eq!(shape_now.iter().product::<usize>(), rows.len() * columns.len(), "{name}");
    let mut meant = Vec::new();
    for row in rows {
        for column in columns {
            meant.extend_from_slice(&bytes[(row * wide + column) * size..][..size]);
        }
    }
    assert_eq!(&meant, bytes_now, "{name}");
}

#[test]
fn kept_rows_and_columns_are_the_sources_bit_for_bit() {
    let folder = architecture("qwen3-window");
    let heads: [&[u32]; 3] = [&[1, 3], &[0, 2], &[0, 3]];
    let mask = halved(folder.path(), &heads, |at| at % 4 != 2);
    let (out, report) = same_as(folder.path(), &mask);
    let (before, after) = (tensors(folder.path()), tensors(out.path()));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    let (all, one): (Vec<usize>, [usize; 1]) = ((0..28).collect(), [0]);
    let channels: Vec<usize> = (0..32).filter(|at| at % 4 != 2).collect();
    let mut cut = 0;
    for (layer, heads) in heads.iter().enumerate() {
        let heads: Vec<usize> =
            heads.iter().flat_map(|h| *h as usize * 12..(*h as usize + 1) * 12).collect();
        for (part, places) in [
            ("self_attn.q_proj.weight", [&heads[..], &all]),
            ("self_attn.q_proj.bias", [&heads, &one]),
            ("self_attn.o_proj.weight", [&all, &heads]),
            ("mlp.gate_proj.weight", [&channels, &all]),
            ("mlp.up_proj.weight", [&channels, &all]),
            ("mlp.down_proj.weight", [&all, &channels]),
        ] {
            same_elements(&format!("model.layers.{layer}.{part}"), (&before, &after), places);
            cut += 1;
        }
    }
    let whole = before.iter().filter(|(name, of)| after[*name] == **of).count();
    assert_eq!(whole + cut, before.len(), "the others stay as they are");

    let mut config = hf_json(folder.path(), "config.json");
    for (key, number) in
        [("num_attention_heads", 2), ("num_key_value_heads", 2), ("intermediate_size", 24)]
    {
        config[key] = json!(number);
    }
    assert_eq!(hf_json(out.path(), "config.json"), config);
    let note = hf_json(out.path(), NOTE);
    assert_eq!(
        (&note["head_of_source"], &note["kv_head_of_source"][0]),
        (&json!(heads), &json!([0, 1]))
    );
    assert_eq!(
        note["source"]["sizes"],
        json!({"layers": 3, "heads": 4, "kv_heads": 2, "channels": 32})
    );
    assert_eq!(note["layer_of_source"], json!([0, 1, 2]));
    let report = serde_json::to_value(report).unwrap();
    assert_eq!((&report["heads"], &report["before"]["heads"]), (&json!(2), &json!(4)));
}

/// The width of a head is named where a reader would make it of their number.
#[test]
fn the_numbers_that_change_are_written_and_no_others() {
    let folder = architecture("llama31");
    let everything = [&[0u32, 1, 2, 3][..]; 2];
    let config_of = |heads: &[&[u32]], channels: fn(u32) -> bool| {
        hf_json(
            same_as(folder.path(), &halved(folder.path(), heads, channels)).0.path(),
            "config.json",
        )
    };
    let mut meant = hf_json(folder.path(), "config.json");
    let source = meant.clone();
    meant["intermediate_size"] = json!(31);
    assert_eq!(config_of(&everything, |at| at != 9), meant);
    let mut meant = source;
    for (key, number) in [("num_attention_heads", 2), ("num_key_value_heads", 2), ("head_dim", 12)]
    {
        meant[key] = json!(number);
    }
    assert_eq!(config_of(&[&[0, 2], &[0, 3]], |_| true), meant);
}

#[test]
fn what_one_number_for_all_layers_cannot_say_is_refused_with_the_remedy() {
    let qwen = architecture("qwen2");
    let some = |heads: &[&[u32]]| halved(qwen.path(), heads, |_| true);
    let mut ragged = some(&[&[0, 3], &[1, 4]]);
    ragged.keep.0.insert(UnitKind::Channel, vec![vec![0, 1], vec![2]]);
    let everything = some(&[&[0, 1, 2, 3, 4, 5][..]; 2]);
    for (mask, words) in [
        (
            some(&[&[0, 3], &[0, 1, 3]]),
            vec!["from 2 to 3 heads", "--units head", "--spread uniform"],
        ),
        (ragged, vec!["from 1 to 2 channels", "--units channel", "--spread uniform"]),
        (
            some(&[&[0, 3], &[0, 1]]),
            vec!["layer 1", "keeps 2 query heads on 1 KV heads", "multiple of 2"],
        ),
        (some(&[&[0, 1, 3], &[1, 3, 4]]), vec!["layer 0", "2 + 1 query heads", "--spread uniform"]),
        (some(&[&[], &[]]), vec!["from 0 to 0 heads", "above 0"]),
        (everything, vec!["keeps every head and channel"]),
    ] {
        let reason = refused(qwen.path(), &mask);
        assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
    }
    // 32 wide with 4 KV heads of 4: three heads would do for the engine, not for transformers.
    let llama = architecture("llama2");
    let reason = refused(llama.path(), &halved(llama.path(), &[&[0, 1, 2][..]; 2], |_| true));
    assert!(
        ["keeps 3 heads", "its width, 32", "keep 1 or 2 of 4"]
            .iter()
            .all(|word| reason.contains(word)),
        "{reason}"
    );
}

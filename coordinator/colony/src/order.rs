//! What a release is made of, and how the ledger holds it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uspx_domain::{BlobRef, ExportFormat, Fingerprint, Mask, ReleaseNumber, StoredFile};

/// What a release is made of; the service builds, stores and names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct ReleaseOrder {
    /// Its number: one more than the last.
    pub release: ReleaseNumber,
    /// The release before it.
    pub previous: Option<ReleaseNumber>,
    /// The teacher.
    pub teacher: Fingerprint,
    /// The base student.
    pub base: Fingerprint,
    /// The adapter that was merged.
    pub adapter: BlobRef,
    /// The student's files in every format whose export succeeded.
    pub formats: BTreeMap<ExportFormat, Vec<StoredFile>>,
    /// The teacher's mask.
    pub mask: Mask,
    /// The mask that the labels were made with.
    pub label_mask: Option<Mask>,
}

impl ReleaseOrder {
    /// The blobs that it is made of. A new part does not compile before it is thought of here.
    pub fn blobs(&self) -> impl Iterator<Item = BlobRef> {
        let Self {
            release: _,
            previous: _,
            teacher: _,
            base: _,
            adapter,
            formats,
            mask: _,
            label_mask: _,
        } = self;
        let files = formats.values().flatten().map(|StoredFile { path: _, blob }| *blob);
        files.chain([*adapter])
    }
}

/// An order in the ledger. The first two formats have fields of their own there, from before there
/// was a map: ledgers stay readable in both directions, and their bytes the same.
#[derive(Serialize, Deserialize)]
struct Written {
    release: ReleaseNumber,
    previous: Option<ReleaseNumber>,
    teacher: Fingerprint,
    base: Fingerprint,
    adapter: BlobRef,
    /// Empty where that export was given up.
    gptq: Vec<StoredFile>,
    gguf: Vec<StoredFile>,
    /// Every other format.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    formats: BTreeMap<ExportFormat, Vec<StoredFile>>,
    mask: Mask,
    label_mask: Option<Mask>,
}

impl From<Written> for ReleaseOrder {
    fn from(written: Written) -> Self {
        let first = [(ExportFormat::GPTQ, written.gptq), (ExportFormat::GGUF, written.gguf)];
        let mut formats = written.formats;
        formats.extend(first.into_iter().filter(|(_, files)| !files.is_empty()));
        Self {
            release: written.release,
            previous: written.previous,
            teacher: written.teacher,
            base: written.base,
            adapter: written.adapter,
            formats,
            mask: written.mask,
            label_mask: written.label_mask,
        }
    }
}

impl From<ReleaseOrder> for Written {
    fn from(order: ReleaseOrder) -> Self {
        let mut formats = order.formats;
        let mut take = |format| formats.remove(&format).unwrap_or_default();
        let (gptq, gguf) = (take(ExportFormat::GPTQ), take(ExportFormat::GGUF));
        Self {
            release: order.release,
            previous: order.previous,
            teacher: order.teacher,
            base: order.base,
            adapter: order.adapter,
            gptq,
            gguf,
            formats,
            mask: order.mask,
            label_mask: order.label_mask,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uspx_domain::{Digest, KeepLists};

    fn order(formats: BTreeMap<ExportFormat, Vec<StoredFile>>) -> ReleaseOrder {
        let model = Fingerprint(Digest::of(b"model"));
        let keep = KeepLists::default();
        ReleaseOrder {
            release: 2,
            previous: Some(1),
            teacher: model,
            base: model,
            adapter: BlobRef::to(b"adapter"),
            formats,
            mask: Mask { version: 1, model, keep },
            label_mask: None,
        }
    }

    fn files(n: u8) -> Vec<StoredFile> {
        vec![StoredFile { path: format!("model-{n}"), blob: BlobRef::to(&[n]) }]
    }

    /// The fields of an order as ledgers had them before formats stood in a map.
    #[test]
    fn orders_of_two_formats_are_written_as_before_the_map() {
        let two = [(ExportFormat::GPTQ, files(1)), (ExportFormat::GGUF, files(2))];
        let json = serde_json::to_value(order(two.into())).unwrap();
        let fields: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let mut before = [
            "release",
            "previous",
            "teacher",
            "base",
            "adapter",
            "gptq",
            "gguf",
            "mask",
            "label_mask",
        ];
        before.sort_unstable();
        let mut found = fields.clone();
        found.sort_unstable();
        assert_eq!(found, before);
        assert_eq!(json["gptq"][0]["path"], "model-1");
        assert_eq!(json["gguf"][0]["path"], "model-2");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            formats in proptest::collection::btree_map(
                proptest::sample::select(ExportFormat::ALL), any::<u8>().prop_map(files), 0..4,
            ),
        ) {
            let order = order(formats);
            let bytes = rmp_serde::to_vec_named(&order).unwrap();
            prop_assert_eq!(rmp_serde::from_slice::<ReleaseOrder>(&bytes).unwrap(), order);
        }
    }
}

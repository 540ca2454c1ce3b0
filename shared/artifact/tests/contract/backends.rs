//! The backends that every contract is tested over.

use libtest_mimic::Trial;
use std::any::Any;
use std::pin::Pin;
use uspx_artifact::Store;
use uspx_tests::moto::Moto;

/// A test of the contract: it holds of every store.
pub type Contract = fn(Store) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Names and boxes each contract, an `async fn(Store)`.
#[macro_export]
macro_rules! contracts {
    ($($name:ident),+ $(,)?) => {
        [$((concat!(module_path!(), "::", stringify!($name)), (|s| Box::pin($name(s))) as $crate::backends::Contract)),+]
    };
}

/// One test per contract and backend; those over S3 need moto.
pub fn over_every_backend<const N: usize>(contracts: [(&'static str, Contract); N]) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (name, contract) in contracts {
        trials.push(over("memory", name, contract, || (Store::memory(), None)));
        trials.push(over("folder", name, contract, folder));
    }
    let s3 = contracts.map(|(name, contract)| over("s3", name, contract, s3));
    trials.extend(Moto::need().of_all(s3.into()));
    trials
}

/// What must live as long as a store does.
type Ground = Option<Box<dyn Any>>;

fn folder() -> (Store, Ground) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap()).unwrap();
    (store, Some(Box::new(folder)))
}

fn s3() -> (Store, Ground) {
    let moto = Moto::start();
    let store = Store::open_with("s3://colony/some/prefix", moto.env()).unwrap();
    (store, Some(Box::new(moto)))
}

fn over(backend: &str, name: &str, contract: Contract, open: fn() -> (Store, Ground)) -> Trial {
    let (_, name) = name.split_once("::").unwrap();
    Trial::test(format!("{name}::{backend}"), move || {
        let (store, _ground) = open();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(contract(store));
        Ok(())
    })
}

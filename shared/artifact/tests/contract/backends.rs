//! The backends that every contract is tested over.

use crate::moto::Moto;
use tempfile::TempDir;
use uspx_artifact::Store;

/// A store, and what must live as long as it does.
pub struct Backend {
    pub store: Store,
    _folder: Option<TempDir>,
    _moto: Option<Moto>,
}

pub fn memory() -> Option<Backend> {
    Some(Backend { store: Store::memory(), _folder: None, _moto: None })
}

pub fn folder() -> Option<Backend> {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap()).unwrap();
    Some(Backend { store, _folder: Some(folder), _moto: None })
}

pub fn s3() -> Option<Backend> {
    let moto = Moto::start()?;
    let store = Store::open_with("s3://colony/some/prefix", moto.env()).unwrap();
    Some(Backend { store, _folder: None, _moto: Some(moto) })
}

/// Makes one test per backend of each contract, an `async fn(Store)`.
#[macro_export]
macro_rules! over_every_backend {
    ($($contract:ident),* $(,)?) => {$(
        mod $contract {
            $crate::over_every_backend!(@one $contract, memory);
            $crate::over_every_backend!(@one $contract, folder);
            $crate::over_every_backend!(@one $contract, s3);
        }
    )*};
    (@one $contract:ident, $backend:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $backend() {
            match $crate::backends::$backend() {
                Some(backend) => super::$contract(backend.store.clone()).await,
                None => println!(
                    "SKIPPED: {}::{} (no moto_server: run tests/tools/venv.sh)",
                    module_path!(),
                    stringify!($backend)
                ),
            }
        }
    };
}

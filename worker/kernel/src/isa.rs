//! Which instruction set the kernels use: found at run time, once, and overridable with
//! `USPX_KERNEL`.

use std::sync::OnceLock;

use crate::KernelError;

/// The environment variable that overrides the choice.
const VARIABLE: &str = "USPX_KERNEL";

/// The kernel families, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Intel's tile multiplier on bf16, activations split into two pieces (Linux, x86-64).
    Amx,
    /// AVX-512 with VNNI: int8 dot products for MXFP4.
    Avx512,
    /// AVX2: int8 dot products for MXFP4.
    Avx2,
    /// NEON on aarch64: int8 dot products for MXFP4.
    Neon,
    /// Plain Rust, on every processor; the reference of the int8 kernels.
    Portable,
}

impl Isa {
    /// Every family, best first.
    pub const ALL: [Isa; 5] = [Isa::Amx, Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable];

    /// The family that [`crate::Matrix::multiply`] uses: the best that runs here, or the one
    /// `USPX_KERNEL` names. The variable is read once, at the first call.
    ///
    /// # Errors
    /// `USPX_KERNEL` names no family, or one that cannot run here.
    pub fn active() -> Result<Isa, KernelError> {
        Ok(chosen()?.isa)
    }

    /// Whether MXFP4 goes through int8 dot products rather than f32 panels: where they were
    /// measured to be quicker (AVX-512 VNNI), or where `USPX_KERNEL` names their family.
    pub(crate) fn int8() -> Result<bool, KernelError> {
        Ok(chosen()?.int8)
    }

    /// The families that run on this machine, best first; the portable one is always among them.
    #[must_use]
    pub fn available() -> Vec<Isa> {
        Self::ALL.into_iter().filter(|isa| isa.supported()).collect()
    }

    /// The name that `USPX_KERNEL` knows it by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Isa::Amx => "amx",
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Neon => "neon",
            Isa::Portable => "portable",
        }
    }

    /// Whether processor and operating system can run it.
    #[must_use]
    pub fn supported(self) -> bool {
        match self {
            Isa::Amx => amx(),
            Isa::Avx512 => avx512(),
            Isa::Avx2 => avx2(),
            Isa::Neon => cfg!(target_arch = "aarch64"),
            Isa::Portable => true,
        }
    }

    /// Itself where it runs here.
    ///
    /// # Errors
    /// It does not run here.
    pub fn checked(self) -> Result<Isa, KernelError> {
        if self.supported() {
            return Ok(self);
        }
        let available: Vec<_> = Self::available().into_iter().map(Isa::name).collect();
        Err(KernelError::UnsupportedIsa { isa: self.name(), available: available.join(", ") })
    }
}

/// A family, and whether its int8 kernel multiplies MXFP4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Choice {
    isa: Isa,
    int8: bool,
}

/// The value of `USPX_KERNEL` for products in f32 everywhere.
const F32: &str = "f32";

fn chosen() -> Result<Choice, KernelError> {
    static CHOSEN: OnceLock<Result<Choice, KernelError>> = OnceLock::new();
    CHOSEN
        .get_or_init(|| {
            choose(std::env::var_os(VARIABLE).map(|v| v.to_string_lossy().into_owned()))
        })
        .clone()
}

/// The best family that runs here, or the one that the environment names.
fn choose(named: Option<String>) -> Result<Choice, KernelError> {
    let best = |f32: bool| {
        let isa = Isa::ALL.into_iter().find(|isa| isa.supported() && !(f32 && *isa == Isa::Amx));
        let isa = isa.unwrap_or(Isa::Portable);
        Ok(Choice { isa, int8: isa == Isa::Avx512 && !f32 })
    };
    match named {
        None => best(false),
        Some(value) if value == F32 => best(true),
        Some(value) => match Isa::ALL.into_iter().find(|isa| isa.name() == value) {
            Some(isa) => Ok(Choice { isa: isa.checked()?, int8: isa != Isa::Amx }),
            None => Err(KernelError::UnknownIsa { value }),
        },
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn amx() -> bool {
    static READY: OnceLock<bool> = OnceLock::new();
    *READY.get_or_init(|| {
        avx512() && is_x86_feature_detected!("avx512bf16") && crate::amx::tile::permitted()
    })
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn amx() -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
fn avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

#[cfg(target_arch = "x86_64")]
fn avx2() -> bool {
    is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn avx512() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
fn avx2() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_a_family_or_an_error_with_its_remedy() {
        assert_eq!(choose(Some("portable".into())), Ok(Choice { isa: Isa::Portable, int8: true }));
        let without = choose(Some("f32".into())).unwrap();
        assert!(without.isa != Isa::Amx && !without.int8);
        let unknown = choose(Some("sse9".into())).unwrap_err().to_string();
        assert!(
            unknown.contains("sse9") && unknown.contains("portable") && unknown.contains("unset"),
            "{unknown}"
        );
        let foreign = if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" };
        let unsupported = choose(Some(foreign.into())).unwrap_err().to_string();
        assert!(unsupported.contains(foreign) && unsupported.contains("portable"), "{unsupported}");
        let best = Isa::available()[0];
        assert_eq!(choose(None), Ok(Choice { isa: best, int8: best == Isa::Avx512 }));
    }
}

//! Panics say where, and never what they were told: a formatted message may quote a prompt
//! (invariant 7).

use std::panic::PanicHookInfo;

/// Has panics logged with their place, and with their words only where these are a constant of the
/// program. To be called once, at the start.
pub fn hide_words() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        tracing::error!(thread, place, "{}, which is a bug", words(info));
    }));
}

fn words(info: &PanicHookInfo<'_>) -> String {
    match info.payload().downcast_ref::<&'static str>() {
        Some(constant) => format!("a panic ({constant})"),
        None => "a panic (its words may quote a prompt and are not shown)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn invariant_7_a_panic_that_quotes_a_prompt_does_not_say_it() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        tracing::subscriber::with_default(subscriber, || {
            super::hide_words();
            let prompt = String::from("my secret question");
            assert!(std::panic::catch_unwind(|| panic!("cannot read {prompt}")).is_err());
            assert!(std::panic::catch_unwind(|| panic!("a constant")).is_err());
        });
        drop(std::panic::take_hook());
        let said = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(said.contains("panics.rs") && said.contains("a constant"), "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
}

//! What the rendering of one conversation may write and make, in bytes: it is spent by whatever
//! prints a value or makes one from others, and where it is spent the template is refused.
//!
//! Sizes are counted before anything is made of them. A value counts with all that it holds,
//! however often it holds it, since that is what printing, comparing or copying it takes.

mod amplify;

use super::guard;
use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, State, Value, context};
use std::cell::Cell;

/// What every conversation is allowed.
const BASE: u64 = 16 << 20;
/// And for each byte of it and of the template.
const PER_BYTE: u64 = 128;
/// What an entry of a list or a map counts beside its text.
const ENTRY: u64 = 32;
/// Lists within lists within lists.
const MAX_DEPTH: u32 = 64;

thread_local! {
    /// What the rendering that runs on this thread was allowed, and what is left of it.
    static ALLOWED: Cell<(u64, u64)> = const { Cell::new((BASE, BASE)) };
}

/// Begins the rendering of a conversation; it and the template have `bytes` together.
pub(super) fn grant(bytes: usize) {
    let all = BASE.saturating_add(PER_BYTE.saturating_mul(bytes as u64));
    ALLOWED.set((all, all));
}

/// What was spent since.
#[cfg(test)]
pub(super) fn spent() -> u64 {
    let (all, left) = ALLOWED.get();
    all - left
}

/// Spends some of what is left.
pub(super) fn spend(bytes: u64) -> Result<(), Error> {
    let (all, left) = ALLOWED.get();
    let Some(left) = left.checked_sub(bytes) else {
        return refuse(format!("it makes or writes more than {all} bytes"));
    };
    ALLOWED.set((all, left));
    Ok(())
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, reason.into()))
}

/// Spends what a value counts.
pub(super) fn weigh(value: &Value) -> Result<(), Error> {
    weigh_at(value, 0)
}

fn weigh_at(value: &Value, depth: u32) -> Result<(), Error> {
    spend(value.as_str().map_or(ENTRY, |text| text.len() as u64))?;
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable) {
        return Ok(());
    }
    if depth == MAX_DEPTH {
        return refuse(format!("it nests lists more than {MAX_DEPTH} deep"));
    }
    for entry in value.try_iter()? {
        if value.kind() == ValueKind::Map {
            weigh_at(&value.get_item(&entry)?, depth + 1)?;
        }
        weigh_at(&entry, depth + 1)?;
    }
    Ok(())
}

/// The filter around operands that are looked at as a whole.
fn deep(value: Value) -> Result<Value, Error> {
    let value = laid_out(value)?;
    // Numbers and the like are steps alone.
    if value.as_str().is_some() || value.as_object().is_some() {
        weigh(&value)?;
    }
    Ok(value)
}

/// The filter around operands of which only the entries are taken.
fn flat(value: Value) -> Result<Value, Error> {
    let value = laid_out(value)?;
    let entries = || ENTRY.saturating_mul(length(&value).saturating_add(1));
    spend(value.as_str().map_or_else(entries, |text| text.len() as u64))?;
    Ok(value)
}

/// The filter around operands of which no more entries are taken than there are steps.
fn text(value: Value) -> Result<Value, Error> {
    let value = laid_out(value)?;
    spend(value.as_str().map_or(0, |text| text.len() as u64))?;
    Ok(value)
}

/// What makes its entries only when it is asked is made: else a chain of such, each asking the one
/// before, has no bound.
fn laid_out(value: Value) -> Result<Value, Error> {
    if value.kind() != ValueKind::Iterable {
        return Ok(value);
    }
    let entries = value.try_iter()?.map(|entry| spend(ENTRY).map(|()| entry));
    Ok(Value::from(entries.collect::<Result<Vec<Value>, Error>>()?))
}

fn length(value: &Value) -> u64 {
    value.len().unwrap_or(0) as u64
}

/// The filter in place of `*`.
fn times(state: &State<'_, '_>, left: Value, right: Value) -> Result<Value, Error> {
    let repeated = |what: &Value, count: &Value| match (what.kind(), count.as_usize()) {
        (ValueKind::String | ValueKind::Seq, Some(count)) => {
            let each = what.as_str().map_or(ENTRY * length(what), |text| text.len() as u64);
            spend(each.saturating_mul(count as u64))
        }
        _ => spend(2 * ENTRY),
    };
    repeated(&left, &right)?;
    repeated(&right, &left)?;
    let product = state.env().compile_expression("left * right")?;
    product.eval(context! { left, right })
}

/// The filter in place of what reads another template.
fn alone(_: Value) -> Result<Value, Error> {
    refuse("it reads another template, and there is none")
}

/// Puts all that makes values under the allowance: the filters that a guarded template names, and
/// those of the engine that can make more than they are given.
pub(super) fn bound(environment: &mut Environment<'static>) {
    environment.add_filter(guard::DEEP, deep);
    environment.add_filter(guard::FLAT, flat);
    environment.add_filter(guard::TEXT, text);
    environment.add_filter(guard::TIMES, times);
    environment.add_filter(guard::ALONE, alone);
    environment.set_unknown_method_callback(amplify::method);
    amplify::bound(environment);
}

//! Filters and methods that can make more than they are given: what that is at most is spent before
//! they run.

use super::{ENTRY, length, refuse, spend, weigh};
use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, State, Value, filters};
use minijinja_contrib::pycompat;

/// What is spent by `args`, of which the first is the value.
type Cost = fn(&[Value]) -> Result<(), Error>;

pub(super) fn bound(environment: &mut Environment<'static>) {
    for (name, own, cost) in [
        ("replace", "uspx_replace", replace as Cost),
        ("join", "uspx_join", join),
        ("indent", "uspx_indent", indent),
        ("format", "uspx_format", format),
        ("slice", "uspx_slice", numbers),
        ("batch", "uspx_batch", numbers),
        ("tojson", "uspx_tojson", spread),
        ("pprint", "uspx_pprint", spread),
        ("trim", "uspx_trim", strip),
        ("map", "uspx_map", product),
        ("select", "uspx_select", product),
        ("reject", "uspx_reject", product),
        ("selectattr", "uspx_selectattr", product),
        ("rejectattr", "uspx_rejectattr", product),
        ("sum", "uspx_sum", square),
    ] {
        let spent_first = move |state: &State<'_, '_>, args: Rest<Value>| {
            cost(&args)?;
            state.apply_filter(own, &args)
        };
        environment.add_filter(name, spent_first);
    }
    environment.add_filter("uspx_replace", filters::replace);
    environment.add_filter("uspx_join", filters::join);
    environment.add_filter("uspx_indent", filters::indent);
    environment.add_filter("uspx_format", filters::format);
    environment.add_filter("uspx_slice", filters::slice);
    environment.add_filter("uspx_batch", filters::batch);
    environment.add_filter("uspx_tojson", crate::chat::tojson::tojson);
    environment.add_filter("uspx_pprint", filters::pprint);
    environment.add_filter("uspx_trim", filters::trim);
    environment.add_filter("uspx_map", filters::map);
    environment.add_filter("uspx_select", filters::select);
    environment.add_filter("uspx_reject", filters::reject);
    environment.add_filter("uspx_selectattr", filters::selectattr);
    environment.add_filter("uspx_rejectattr", filters::rejectattr);
    environment.add_filter("uspx_sum", filters::sum);
}

/// The methods of strings, lists and maps.
pub(super) fn method(
    state: &State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let all: Vec<Value> = std::iter::once(value).chain(args).cloned().collect();
    match name {
        "replace" => replace(&all)?,
        // The separator is what it is called on.
        "join" => join(&all.iter().rev().cloned().collect::<Vec<_>>())?,
        "format" => format(&all)?,
        "strip" | "lstrip" | "rstrip" => strip(&all)?,
        // Of an empty text there is no end.
        "count" if args.first().and_then(Value::as_str) == Some("") => {
            return refuse("it counts an empty text");
        }
        _ => {}
    }
    pycompat::unknown_method_callback(state, value, name, args)
}

fn text(args: &[Value], at: usize) -> &str {
    args.get(at).and_then(Value::as_str).unwrap_or_default()
}

/// The numbers among the arguments.
fn sum(args: &[Value]) -> u64 {
    let own = |v: &Value| v.as_i64().map_or(0, i64::unsigned_abs);
    let named = |v: &Value| -> u64 {
        let values = v.try_iter().into_iter().flatten().filter_map(|key| v.get_item(&key).ok());
        values.map(|v| own(&v)).fold(0, u64::saturating_add)
    };
    let each = |v: &Value| if v.kind() == ValueKind::Map { named(v) } else { own(v) };
    args.iter().skip(1).map(each).fold(0, u64::saturating_add)
}

fn replace(args: &[Value]) -> Result<(), Error> {
    let (within, from, to) = (text(args, 0), text(args, 1), text(args, 2));
    spend((within.matches(from).count() as u64).saturating_mul(to.len() as u64))
}

fn join(args: &[Value]) -> Result<(), Error> {
    let entries = args.first().map_or(0, length);
    spend(entries.saturating_mul(text(args, 1).len() as u64))
}

fn indent(args: &[Value]) -> Result<(), Error> {
    let lines = text(args, 0).matches('\n').count() as u64 + 2;
    spend(lines.saturating_mul(sum(args)))
}

/// A width stands in the format, or among what it is given.
fn format(args: &[Value]) -> Result<(), Error> {
    let digits = text(args, 0).split(|c: char| !c.is_ascii_digit()).filter(|d| !d.is_empty());
    let widths = digits.map(|d| d.parse().unwrap_or(u64::MAX)).fold(0, u64::saturating_add);
    spend(widths.saturating_add(sum(args)))
}

fn numbers(args: &[Value]) -> Result<(), Error> {
    spend(ENTRY.saturating_mul(sum(args)))
}

/// Every entry on a line of its own, indented.
fn spread(args: &[Value]) -> Result<(), Error> {
    let Some(value) = args.first() else { return Ok(()) };
    (0..sum(args).min(1 << 16)).try_for_each(|_| weigh(value))
}

/// Every letter at an end is looked for among those to take off.
fn strip(args: &[Value]) -> Result<(), Error> {
    spend((text(args, 0).len() as u64).saturating_mul(text(args, 1).len() as u64 / 64))
}

/// A test or a filter with the arguments, for every entry.
fn product(args: &[Value]) -> Result<(), Error> {
    let (entries, rest) = (args.first().map_or(0, length), args.get(1..).unwrap_or_default());
    (0..entries).try_for_each(|_| rest.iter().try_for_each(weigh))
}

fn square(args: &[Value]) -> Result<(), Error> {
    let Some(value) = args.first() else { return Ok(()) };
    (0..length(value)).try_for_each(|_| weigh(value))
}
